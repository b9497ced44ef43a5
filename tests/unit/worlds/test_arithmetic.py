"""Sums are right, different, and in one split each."""

import re

import pytest

from tutelage.errors import DataError
from tutelage.worlds.arithmetic import (
    SPLITS,
    Sum,
    SumsDocument,
    demonstrations,
    documents,
    prompts,
    sums,
)


def by_hand(text: str) -> int:
    left, operator, right = re.fullmatch(r"(\d+)([+-])(\d+)=", text).groups()
    return int(left) + int(right) * (1 if operator == "+" else -1)


def asked(documents: list[SumsDocument]) -> set[str]:
    return {each.content for row in documents for each in row.messages if each.role == "user"}


def test_documents_and_demonstrations_say_the_truth():
    rows = documents(2, 50, seed=0)
    for row in rows:
        assert len(row.messages) == 2 * len(row.facts) == 16
        for index, start, end in row.facts:
            result = row.messages[index].content[start:end]
            assert int(result) == by_hand(row.messages[index - 1].content)
    for row in demonstrations(2, 50, seed=0):
        question, answer = (message.content for message in row.messages)
        assert int(answer) == by_hand(question)


def test_references_are_right_and_not_in_the_question():
    for prompt in prompts("test", 2, 100, seed=0):
        assert prompt.reference == str(by_hand(prompt.text))


def test_no_sum_is_in_two_splits_and_every_sum_is_in_one():
    parts = {split: {each.text for each in sums(split, 2, None, seed=0)} for split in SPLITS}
    assert sum(map(len, parts.values())) == len(set().union(*parts.values())) == 20_000
    for split, share in SPLITS.items():
        # A binomial count of 20,000 lies within 0.02 of its share but for one time in 10^8.
        assert len(parts[split]) / 20_000 == pytest.approx(share, abs=0.02)


def test_what_is_read_and_imitated_is_never_asked():
    read = asked(documents(1, 500, seed=3))
    shown = {row.messages[0].content for row in demonstrations(1, 90, seed=4)}
    assert len(read) > 50
    for split in ("rl", "held_out", "test"):
        assert not (read | shown) & {each.text for each in sums(split, 1, None, seed=5)}


def test_the_seed_orders_and_a_larger_draw_has_no_repetitions():
    first, second = (prompts("rl", 2, 500, seed=seed) for seed in (0, 1))
    assert [row.text for row in first] != [row.text for row in second]
    assert len({row.text for row in first}) == len({row.id for row in first}) == 500
    assert first == prompts("rl", 2, 500, seed=0)


def test_too_many_are_refused_with_what_there_is():
    with pytest.raises(DataError, match=r"there are \d+ sums of 1 digits in split 'test'"):
        sums("test", 1, 200, seed=0)


def test_results_may_be_negative():
    assert Sum(3, "-", 12).result == -9
    assert Sum(3, "-", 12).text == "03-12="


def test_every_number_has_its_full_width():
    answers = [each.answer for each in sums("train", 2, None, seed=0)]
    assert {len(answer) for answer in answers} == {3}
    assert Sum(3, "-", 12).answer == "-09"
    assert Sum(40, "+", 5).answer == "045"
