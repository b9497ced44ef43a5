"""Diversity of completions: counted by hand, and pair by pair."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.algorithms import distinct_ngrams, self_overlap, unique_share

RESPONSES = [[1, 2, 1, 2], [1, 2], [5]]
responses = st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=2, max_size=5)


def test_distinct_ngrams_by_hand():
    """Tokens 1 2 1 2 1 2 5; pairs 12 21 12, 12 and none; one triple each of 121, 212."""
    assert distinct_ngrams(RESPONSES, 1) == 3 / 7
    assert distinct_ngrams(RESPONSES, 2) == 2 / 4
    assert distinct_ngrams(RESPONSES, 3) == 1
    assert distinct_ngrams([[3], []], 2) == 0


def test_ngrams_do_not_reach_from_one_completion_into_the_next():
    assert distinct_ngrams([[1, 2], [3, 4]], 2) == 2 / 2
    assert distinct_ngrams([[1, 2, 3, 4]], 2) == 3 / 3
    assert distinct_ngrams([[1, 2], [1, 2]], 2) == 1 / 2


def test_unique_share_by_hand():
    assert unique_share([[1, 2], [1, 2], [1], []]) == 3 / 4
    assert unique_share([[4, 4]] * 5) == 1 / 5
    assert unique_share([]) == 0


def test_self_overlap_by_hand():
    """Pairs {12, 23}, {12}, {45}: 1/2 + 0, 1 + 0, 0 + 0 over the six ordered pairs."""
    first = [[1, 2, 3], [1, 2], [4, 5]]
    assert self_overlap([first]) == pytest.approx(1.5 / 6)
    # Two prompts weigh the same, however many completions each has.
    assert self_overlap([first, [[7, 8], [7, 8]]]) == pytest.approx((1.5 / 6 + 1) / 2)


def test_completions_too_short_for_an_ngram_overlap_where_they_are_the_same():
    assert self_overlap([[[2], [2]]]) == 1
    assert self_overlap([[[2], [3]]]) == 0
    assert self_overlap([[[], []]]) == 1


def test_one_completion_for_each_prompt_has_nothing_to_overlap_with():
    assert self_overlap([[[1, 2, 3]], [[1, 2, 3]]]) == 0


@given(responses, st.integers(1, 3))
def test_self_overlap_is_the_mean_over_pairs(group, n):
    def grams(response):
        found = {tuple(response[t : t + n]) for t in range(len(response) - n + 1)}
        return found or {tuple(response)}

    pairs = [len(grams(a) & grams(b)) / len(grams(a)) for a, b in permutations(group, 2)]
    assert self_overlap([group], n) == pytest.approx(sum(pairs) / len(pairs))


@given(responses)
def test_the_same_completion_over_and_over_is_the_least_diverse(group):
    same = [group[0]] * len(group)
    assert self_overlap([same]) == pytest.approx(1)
    assert unique_share(same) <= unique_share(group)
    assert self_overlap([group]) <= 1 + 1e-12
