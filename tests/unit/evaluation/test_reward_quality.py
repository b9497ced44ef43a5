"""Accuracy, calibration and the price of length, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from tutelage.errors import DataError
from tutelage.evaluation.reward_quality import length_relation, quality


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_four_pairs_by_hand():
    """Predictions .9 .8 .3 .65 for labels 1 0 0 1: right, wrong, right, right.

    Brier (.01 + .64 + .09 + .1225) / 4; each bin holds one prediction from either order.
    """
    measured = quality([logit(0.9), logit(0.8), logit(0.3), logit(0.65)], [1, 0, 0, 1])
    assert measured.accuracy.mean == 0.75
    assert measured.brier == pytest.approx(0.215625, abs=1e-12)
    nll = -(math.log(0.9) + math.log(0.2) + math.log(0.7) + math.log(0.65)) / 4
    assert measured.loss == pytest.approx(nll, abs=1e-12)
    # |.9 - 1|, |.8 - 0|, |.3 - 0|, |.65 - 1|; .1 .2 .7 .35 of the other order miss by as much.
    assert measured.ece == pytest.approx((0.1 + 0.8 + 0.3 + 0.35) / 4, abs=1e-9)


def test_reliability_counts_each_pair_in_both_orders():
    measured = quality([logit(0.75)] * 4, [1, 1, 1, 0])
    low, high = measured.reliability
    assert (low["low"], low["high"]) == pytest.approx((0.2, 0.3))
    assert (low["predicted"], low["observed"], low["count"]) == pytest.approx((0.25, 0.25, 4))
    assert (high["predicted"], high["observed"], high["count"]) == pytest.approx((0.75, 0.75, 4))
    assert measured.ece == pytest.approx(0, abs=1e-12)


def test_calibrated_scores_have_little_error_and_overconfident_ones_much():
    random = np.random.default_rng(0)
    margins = random.normal(0, 1.5, 4_000)
    labels = (random.random(4_000) < 1 / (1 + np.exp(-margins))).astype(float)
    assert quality(margins, labels).ece < 0.02
    assert quality(3 * margins, labels).ece > 0.1


def test_equal_scores_and_ties_are_worth_a_coin():
    assert quality([0.0, 0.0], [1, 0]).accuracy.mean == 0.5
    assert quality([2.0, -2.0], [0.5, 0.5]).accuracy.mean == 0.5


def test_extreme_margins_do_not_overflow():
    measured = quality([1e4, -1e4], [1, 1])
    assert measured.brier == pytest.approx(0.5)
    assert measured.loss == pytest.approx(5e3)


def test_nothing_to_measure_on_is_an_error():
    with pytest.raises(DataError, match="raise held_out"):
        quality([], [])


def test_planted_slope_is_found_under_noise():
    """Scores rise by 0.02 sigma per token, in noise of one sigma."""
    random = np.random.default_rng(0)
    lengths = random.integers(10, 101, 4000)
    scores = 5 + 3 * random.normal(0, 1, 4000) + 0.06 * lengths
    relation = length_relation(scores.tolist(), lengths.tolist())
    assert relation.threshold == np.quantile(lengths, 0.9)
    assert relation.mean == pytest.approx(scores.mean())
    assert relation.std == pytest.approx(scores.std())
    assert relation.floor == pytest.approx((scores.min() - scores.mean()) / scores.std())
    # The 400 longest alone know it to 0.02, and the larger of the two estimates counts.
    assert 0.06 / scores.std() - 0.002 < relation.slope < 0.06 / scores.std() + 0.06


def test_price_of_the_longest_answers_counts_where_it_is_higher():
    lengths = list(range(1, 401))
    threshold = 1 + 0.9 * 399
    scores = [max(0.0, length - threshold) for length in lengths]
    assert length_relation(scores, lengths).slope == pytest.approx(1 / np.std(scores), rel=1e-9)
    falling = [length - 2 * max(0.0, length - threshold) for length in lengths]
    assert length_relation(falling, lengths).slope > 0.5 / np.std(falling)


def test_slope_of_exact_scores_is_exact():
    lengths = list(range(1, 401))
    relation = length_relation([2.0 + 0.5 * length for length in lengths], lengths)
    spread = 0.5 * np.std(lengths)
    assert relation.slope == pytest.approx(0.5 / spread, rel=1e-9)
    assert relation.correlation == pytest.approx(1, abs=1e-9)
    assert len(relation.points) == 400
    assert {length for length, _ in relation.points} == set(lengths)


def test_few_long_answers_get_no_slope_of_their_own():
    """Least squares through (1, 1), (2, 2), (3, 4) rises by 1.5 a token."""
    relation = length_relation([1.0, 2.0, 4.0], [1, 2, 3])
    assert relation.slope == pytest.approx(1.5 / np.std([1, 2, 4]))
    # One token beyond the threshold, the scores of the 29 longest soar.
    lengths = [10] * 200 + [20] * 70 + list(range(21, 50))
    scores = [0.0] * 271 + [float(i) for i in range(28)]
    relation = length_relation(scores, lengths)
    assert sum(length > relation.threshold for length in lengths) < 30
    x, y = np.array(lengths), np.array(scores) / relation.std
    assert relation.slope == pytest.approx(np.cov(x, y, bias=True)[0, 1] / np.var(x))


def test_one_length_or_one_score_pays_nothing():
    assert length_relation([1.0, 2.0, 3.0], [5, 5, 5]).slope == 0
    relation = length_relation([1.0, 1.0, 1.0], [5, 6, 7])
    assert (relation.std, relation.slope, relation.correlation) == (1.0, pytest.approx(0), 0.0)


def test_record_holds_what_was_measured():
    measured = quality([1.0, -1.0], [1, 0])
    assert "length_slope" not in measured.to_json()
    assert measured.length_slope == measured.length_correlation == 0
    measured.describe_lengths(length_relation([1.0, 2.0, 3.0], [5, 6, 7]))
    row = measured.to_json()
    assert row["held_out_accuracy"]["mean"] == 1.0
    assert row["length_slope"] == measured.length_slope > 0
