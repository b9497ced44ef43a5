"""How completions become rows of tensors, and rows become smaller batches."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.experience import Experience, TokenBatch
from tutelage.records import Completion, Message, Score, ScoreStatus, StopReason, Turn

PAD = EOS = 2


def completion(*tokens: int, stop: StopReason = StopReason.STOP_TOKEN) -> Completion:
    logprobs = tuple(-0.5 - i for i in range(len(tokens)))
    return Completion("p", tokens, logprobs, "text", stop)


def collate(*rows: tuple[list[int], Completion, Score]) -> Experience:
    prompts, completions, scores = zip(*rows, strict=True)
    return Experience.collate(prompts, completions, scores, pad=PAD)


def as_bits(mask: torch.Tensor) -> list[list[int]]:
    return mask.int().tolist()


def test_stop_token_is_an_action_also_when_it_is_the_padding():
    batch = collate(
        ([5, 6], completion(7, 8, EOS), Score(1.0)),
        ([5], completion(7, 8, 9, 7, 8, stop=StopReason.LENGTH), Score(2.0)),
    )
    assert batch.tokens.tolist() == [[5, 6, 7, 8, EOS, PAD], [5, 7, 8, 9, 7, 8]]
    assert as_bits(batch.attention_mask) == [[1, 1, 1, 1, 1, 0], [1] * 6]
    assert as_bits(batch.response_mask) == [[0, 0, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1]]
    assert batch.truncated.tolist() == [False, True]


def test_padding_token_inside_a_prompt_is_still_attended_to():
    batch = collate(([5, PAD, 6], completion(7), Score(0.0)), ([5], completion(7), Score(0.0)))
    assert as_bits(batch.attention_mask) == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_sampler_logprobs_lie_on_their_own_tokens():
    batch = collate(([5, 6], completion(7, 8), Score(0.0)), ([5], completion(7), Score(0.0)))
    assert batch.sampler_logprobs.tolist() == [[0, 0, -0.5, -1.5], [0, -0.5, 0, 0]]


def test_failed_score_keeps_its_row_and_counts_nowhere():
    failed = Score.failed(ScoreStatus.TIMEOUT, "no answer")
    batch = collate(([5], completion(7, 8), failed), ([5], completion(7, 8), Score(3.0)))
    assert as_bits(batch.response_mask) == [[0, 0, 0], [0, 1, 1]]
    assert batch.scores.tolist() == [0.0, 3.0]
    assert batch.sampler_logprobs[0].tolist() == [0, 0, 0]
    assert batch.denominator == 2


def test_truncation_is_not_read_off_the_width_of_the_batch():
    batch = collate(
        ([5] * 6, completion(7, EOS), Score(0.0)),
        ([5], completion(7, 8, stop=StopReason.LENGTH), Score(0.0)),
    )
    assert batch.truncated.tolist() == [False, True]


def test_one_token_response_is_one_trained_token():
    batch = collate(([5, 6, 7], completion(EOS), Score(0.0)))
    assert batch.response_lengths.tolist() == [1]
    assert batch.row_lengths == [4]


def test_prompts_and_completions_must_correspond():
    with pytest.raises(ValueError, match="zip"):
        Experience.collate([[5], [6]], [completion(7)], [Score(0.0)], pad=PAD)


lengths = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6)


@given(lengths, st.randoms(use_true_random=False))
def test_selected_rows_are_the_rows_collated_alone(sizes, random):
    rows = [
        ([5] * prompt, completion(*range(7, 7 + response)), Score(float(i)))
        for i, (prompt, response) in enumerate(sizes)
    ]
    chosen = [random.randrange(len(rows)) for _ in range(3)]
    picked = collate(*rows).select(chosen)
    alone = collate(*(rows[i] for i in chosen))
    assert picked.tokens.equal(alone.tokens)
    assert picked.attention_mask.equal(alone.attention_mask)
    assert picked.response_mask.equal(alone.response_mask)
    assert picked.sampler_logprobs.equal(alone.sampler_logprobs)
    assert picked.scores.equal(alone.scores)


@given(lengths)
def test_trained_tokens_are_the_generated_tokens(sizes):
    rows = [([5] * p, completion(*range(7, 7 + r)), Score(0.0)) for p, r in sizes]
    batch = collate(*rows)
    assert batch.denominator == sum(response for _, response in sizes)
    assert batch.row_lengths == [prompt + response for prompt, response in sizes]


def test_states_of_selected_rows_are_cut_with_their_tokens():
    batch = collate(([5], completion(7), Score(0.0)), ([5, 6], completion(7, 8), Score(0.0)))
    states = torch.arange(2 * 4 * 3.0).view(2, 4, 3)
    batch = replace(batch, lower_states=states)
    assert batch.select([0]).lower_states.equal(states[:1, :2])
    assert batch.select([1, 0]).lower_states.equal(states.flip(0))


def test_moving_a_batch_keeps_what_is_there_and_what_is_not():
    batch = collate(([5], completion(7), Score(1.0))).to("cpu")
    assert batch.old_logprobs is None
    assert batch.scores.tolist() == [1.0]


def test_first_token_of_a_sequence_cannot_be_imitated():
    batch = TokenBatch.collate([([5, 6, 7], [1, 1, 1]), ([5, 6], [0, 0.5])], pad=PAD)
    assert batch.weights.tolist() == [[0, 1, 1], [0, 0.5, 0]]
    assert as_bits(batch.response_mask) == [[0, 1, 1], [0, 1, 0]]
    assert math.isclose(batch.denominator, 2.5)


def test_selected_sequences_are_cut_to_the_longest():
    batch = TokenBatch.collate([([5, 6, 7], [0, 1, 1]), ([5, 6], [0, 1])], pad=PAD).select([1])
    assert batch.tokens.tolist() == [[5, 6]]
    assert batch.row_lengths == [2]


# Conversations.

TALK = Completion(
    "p",
    (7, EOS, 5, 5, 8, 9, EOS),
    (-0.5, -1.0, 0.0, 0.0, -1.5, -2.0, -2.5),
    "transcript",
    StopReason.STOP_TOKEN,
    turns=(
        Turn(0, 2, "seven", StopReason.STOP_TOKEN, (Message("user", "and?"),)),
        Turn(4, 7, "eight nine", StopReason.STOP_TOKEN),
    ),
)


def test_what_was_read_between_two_turns_is_no_response():
    batch = collate(([5, 6], TALK, Score(3.0)), ([5], completion(7, EOS), Score(1.0)))
    assert as_bits(batch.response_mask) == [[0, 0, 1, 1, 0, 0, 1, 1, 1], [0, 1, 1] + [0] * 6]
    assert as_bits(batch.attention_mask) == [[1] * 9, [1] * 3 + [0] * 6]
    assert batch.response_lengths.tolist() == [5, 2]
    assert batch.row_lengths == [9, 3]
    assert batch.sampler_logprobs[0].tolist() == [0, 0, -0.5, -1, 0, 0, -1.5, -2, -2.5]


def test_turns_before_the_last_keep_their_part_of_the_score_on_their_last_token():
    batch = collate(
        ([5, 6], TALK, Score(3.0, turns=(2.0, 1.0))), ([5], completion(7, EOS), Score(1.0))
    )
    assert batch.earned.tolist() == [[0, 0, 0, 2, 0, 0, 0, 0, 0], [0] * 9]
    assert batch.select([1]).earned.tolist() == [[0] * 3]


def test_scores_that_are_earned_at_the_end_need_no_second_tensor():
    assert collate(([5], completion(7, EOS), Score(1.0))).earned is None
    assert collate(([5], TALK, Score(3.0))).earned is None


def test_a_failed_conversation_earns_nothing_on_the_way():
    failed = Score.failed(ScoreStatus.ERROR, "environment")
    batch = collate(([5], TALK, failed), ([5], completion(7, EOS), Score(1.0)))
    assert batch.earned is None
    assert not batch.response_mask[0].any()
