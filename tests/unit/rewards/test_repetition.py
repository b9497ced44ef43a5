"""What a completion loses by repeating itself."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.records import Completion, Message, Prompt, StopReason
from tutelage.rewards import RepetitionPenalty

ASKED = Prompt("p", (Message("user", "how are you?"),))


def penalty(tokens, size: int) -> float:
    completion = Completion("p", tuple(tokens), (-1.0,) * len(tokens), "", StopReason.STOP_TOKEN)
    (score,) = RepetitionPenalty(size)([ASKED], [completion])
    return score.value


@pytest.mark.parametrize(
    ("tokens", "size", "expected"),
    [
        ([1, 2, 3, 4], 2, 0.0),
        # 12, 23, 31, 12, 23: two of five were there before.
        ([1, 2, 3, 1, 2, 3], 2, -2 / 5),
        ([7] * 11, 1, -10 / 11),
        ([7] * 12, 3, -9 / 10),
        ([1, 2], 3, 0.0),
        ([], 1, 0.0),
    ],
)
def test_share_of_ngrams_that_were_there_before(tokens, size, expected):
    assert penalty(tokens, size) == pytest.approx(expected)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40))
def test_each_ngram_that_was_there_before_counts_once(tokens):
    seen, repeated = set(), 0
    for pair in pairwise(tokens):
        repeated += pair in seen
        seen.add(pair)
    assert penalty(tokens, 2) == pytest.approx(-repeated / (len(tokens) - 1))
