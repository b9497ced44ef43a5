"""How sure a judge must be to be believed: bounds worked out exactly, and how often they hold."""

import math
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.feedback.trust import compared, fewest_labels, trusted_confidence, upper_bound


def at_most(errors: int, count: int, rate: Fraction) -> Fraction:
    """P(Bin(count, rate) <= errors), exactly."""
    return sum(
        (math.comb(count, i) * rate**i * (1 - rate) ** (count - i) for i in range(errors + 1)),
        Fraction(0),
    )


@pytest.mark.parametrize(
    ("errors", "count", "failure"),
    [(0, 1, 0.1), (0, 30, 0.05), (1, 10, 0.05), (7, 40, 0.1), (39, 40, 0.2), (120, 900, 0.01)],
)
def test_the_bound_is_the_rate_at_which_so_few_errors_are_as_unlikely_as_allowed(
    errors, count, failure
):
    bound = upper_bound(errors, count, failure)
    assert float(at_most(errors, count, Fraction(bound))) == pytest.approx(failure, rel=1e-6)


def test_without_an_error_the_bound_is_a_root_and_with_nothing_else_it_is_one():
    assert upper_bound(0, 30, 0.05) == pytest.approx(1 - 0.05 ** (1 / 30))
    assert upper_bound(5, 5, 0.05) == 1.0


def test_fewest_labels_are_those_that_could_show_it_without_an_error():
    """.8^10 = .107 and .8^11 = .086."""
    assert fewest_labels(0.2, 0.1) == 11
    assert upper_bound(0, 11, 0.1) <= 0.2 < upper_bound(0, 10, 0.1)


@pytest.mark.parametrize("disagreement", [0.01, 0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("failure", [0.01, 0.05, 0.1])
def test_the_walk_begins_where_a_judge_that_errs_half_as_often_as_it_may_passes(
    disagreement, failure
):
    labels = 5 * fewest_labels(disagreement, failure)
    errors = int(labels * disagreement / 2)
    verdicts = [(1.0, i >= errors) for i in range(labels)]
    assert trusted_confidence(verdicts, disagreement=disagreement, failure=failure) is not None


@pytest.mark.parametrize(
    ("p_a", "orders", "people", "expected"),
    [
        (0.9, (0.8, 1.0), 1.0, (0.8, True)),
        (0.9, None, 0.2, (0.8, False)),
        (0.55, (0.9, 0.2), 0.7, (0.0, True)),
        (0.5, (0.5, 0.5), 1.0, (0.0, False)),
        (0.9, (0.8, 1.0), 0.5, None),
        (0.9, (0.8, 1.0), (0.2 + 0.4 + 0.9) / 3, None),
    ],
)
def test_a_verdict_beside_peoples(p_a, orders, people, expected):
    """Orders that contradict each other have no confidence, and ties of people no verdict."""
    found = compared(p_a, orders, people)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_trust_by_hand():
    """150 sure verdicts without an error, 150 less sure ones with half of them wrong."""
    sure = [(0.9, True)] * 150
    unsure = [(0.5, i % 2 == 0) for i in range(150)]
    trust = trusted_confidence(sure + unsure, disagreement=0.1, failure=0.1)
    assert trust is not None
    assert 0.5 < trust.confidence <= 0.9
    assert (trust.coverage, trust.labels) == (0.5, 150)
    assert trust.bound == pytest.approx(1 - 0.1 ** (1 / 150))


def test_the_walk_ends_at_the_first_threshold_that_is_not_good_enough():
    """Below the bad middle all would be well again, by the sum alone."""
    verdicts = [(0.9, i % 2 == 0) for i in range(200)] + [(0.3, True)] * 3000
    assert upper_bound(100, 3200, 0.1) < 0.1
    assert trusted_confidence(verdicts, disagreement=0.1, failure=0.1) is None


def test_a_judge_that_is_always_right_is_trusted_with_everything():
    trust = trusted_confidence([(i / 100, True) for i in range(101)], disagreement=0.1)
    assert trust is not None
    assert (trust.confidence, trust.coverage) == (0.0, 1.0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_shares_that_are_none_are_refused(share):
    verdicts = [(0.5, True)] * 100
    with pytest.raises(DataError, match="between 0 and 1"):
        trusted_confidence(verdicts, disagreement=share)
    with pytest.raises(DataError, match="between 0 and 1"):
        trusted_confidence(verdicts, disagreement=0.1, failure=share)


def test_too_few_labels_are_refused_with_the_number_that_is_needed():
    with pytest.raises(DataError, match=r"^10 comparisons .* at least 11 .* at most 20%"):
        trusted_confidence([(1.0, True)] * 10, disagreement=0.2, failure=0.1)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=11, max_size=200),
    st.randoms(use_true_random=False),
)
def test_order_does_not_matter_and_the_bound_keeps_its_word(verdicts, source):
    trust = trusted_confidence(verdicts, disagreement=0.2, failure=0.1)
    again = source.sample(verdicts, len(verdicts))
    assert trusted_confidence(again, disagreement=0.2, failure=0.1) == trust
    if trust is not None:
        kept = [agrees for confidence, agrees in verdicts if confidence >= trust.confidence]
        assert trust.labels == len(kept)
        assert trust.coverage == len(kept) / len(verdicts)
        assert trust.bound == upper_bound(kept.count(False), len(kept), 0.1) <= 0.2


def test_the_guarantee_holds_in_all_but_the_allowed_share_of_resamples():
    """A judge that agrees with people with probability .55 + .4 c where its confidence is c.

    Among verdicts of confidence c and more it disagrees with .45 - .4 (1 + c) / 2 of them: .2 is
    passed below c = .25. Of 200 sets of 500 labels at most a twentieth may choose less.
    """
    found = []
    for seed in range(200):
        random = Random(seed)
        verdicts = [
            (c, random.random() < 0.55 + 0.4 * c) for c in (random.random() for _ in range(500))
        ]
        trust = trusted_confidence(verdicts, disagreement=0.2, failure=0.05)
        found.append(1.0 if trust is None else trust.confidence)
    broken = sum(confidence < 0.25 - 1e-9 for confidence in found)
    assert broken <= 10
    # And it is worth having: half of the runs trust the judge with more than a third.
    assert sorted(found)[100] < 2 / 3
