import math
from statistics import median

import pytest
import torch
from benchmarks.sides.forcing import ForcedLengths, force
from benchmarks.sides.lengths import answers, forced_lengths, prompts
from benchmarks.sides.requests import Requests
from benchmarks.sides.rollouts import real_tokens
from benchmarks.sides.shapes import END, FIRST_WORD, PAD


def test_lengths_follow_the_stated_distribution():
    lengths = forced_lengths(20_000, 1000, seed=0)
    logs = [math.log(n) for n in lengths if n < 1000]
    # The median is that of the log-normal, min() is above it; sampling error of 20,000 draws.
    assert median(lengths) == pytest.approx(300, rel=0.02)
    # P(n >= max) = P(Z > ln(1/0.3)/0.6 = 2.007) = 0.0224
    assert sum(n == 1000 for n in lengths) / 20_000 == pytest.approx(0.0224, abs=0.003)
    assert min(lengths) >= 4
    assert max(logs) < math.log(1000)


def test_lengths_depend_on_the_seed_alone():
    assert forced_lengths(50, 64, 3) == forced_lengths(50, 64, 3)
    assert forced_lengths(50, 64, 3) != forced_lengths(50, 64, 4)
    assert forced_lengths(80, 64, 3)[:50] == forced_lengths(50, 64, 3)


def test_short_limits_give_at_least_four_tokens():
    assert set(forced_lengths(200, 5, 0)) <= {4, 5}


def test_prompts_are_distinct_and_within_bounds():
    found = prompts(100, 2, 5, range(8, 12), seed=0)
    assert len({tuple(ids) for ids in found}) == 100
    assert {len(ids) for ids in found} == {2, 3, 4, 5}
    assert all(8 <= token < 12 for ids in found for token in ids)


def test_answers_end_where_they_must_and_nowhere_before():
    found = answers([4, 7], range(8, 12), end=END, seed=0)
    assert [len(ids) for ids in found] == [4, 7]
    assert all(ids[-1] == END and END not in ids[:-1] for ids in found)


def test_forcing_leaves_one_way_to_end_and_none_before():
    logits = torch.randn(3, 16)
    shaped = force(logits.clone(), torch.tensor([False, True, False]))
    assert shaped[1].argmax() == END
    assert torch.isfinite(shaped[1]).sum() == 1
    for row in (0, 2):
        assert torch.isinf(shaped[row, [PAD, END]]).all()
        assert torch.equal(shaped[row, 2:], logits[row, 2:])


def test_processor_ends_left_padded_rows_at_their_lengths_in_every_call():
    lengths = {(8, 9): 3, (9, 8, 7): 1}
    processor = ForcedLengths(lengths)
    for _ in range(2):
        rows = torch.tensor([[PAD, 8, 9], [9, 8, 7]])
        ends: list[list[bool]] = []
        for _ in range(3):
            scores = processor(rows, torch.zeros(2, 16))
            ends.append((scores.argmax(1) == END).tolist())
            rows = torch.cat([rows, torch.full((2, 1), 10)], 1)
        assert ends == [[False, True], [False, False], [True, False]]


def test_padding_behind_the_end_is_no_real_token():
    rows = torch.tensor([[9, 9, END, PAD, PAD], [9, 9, 9, 9, END], [9, 9, 9, 9, 9]])
    assert real_tokens(rows) == 3 + 5 + 5


def test_requests_give_the_same_work_to_all_sides():
    asked = Requests(shape="micro", count=6, shortest=3, longest=9, answer=12)
    assert [len(ids) for ids in asked.answers] == asked.lengths
    assert asked.real_tokens == sum(map(len, asked.prompts)) + sum(asked.lengths)
    assert min(min(ids) for ids in asked.prompts) >= FIRST_WORD
    assert Requests("micro", 6, 3, 9, 12).prompts == asked.prompts
    assert Requests("micro", 6, 3, 9, 12, full=True).lengths == [12] * 6
