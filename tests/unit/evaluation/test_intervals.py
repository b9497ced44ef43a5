"""Intervals cover the truth as often as they say."""

import numpy as np
import pytest

from tutelage.evaluation.intervals import bootstrap_difference, bootstrap_mean


def test_interval_covers_the_mean_as_often_as_it_says():
    """200 samples of 50 skewed values: about 93 % of nominal 95 % intervals, 0.89 to 0.98."""
    random = np.random.default_rng(0)
    estimates = [bootstrap_mean(random.exponential(1.0, 50), seed=i) for i in range(200)]
    assert 0.89 <= np.mean([e.low <= 1.0 <= e.high for e in estimates]) <= 0.98


def test_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    estimate = bootstrap_mean(values)
    assert estimate.mean == pytest.approx(values.mean(), abs=1e-12)
    assert estimate.n == 400
    # The quantiles of 2000 resamples are known to a few per cent.
    expected = 2 * 1.96 * values.std() / 20
    assert estimate.high - estimate.low == pytest.approx(expected, rel=0.08)


def test_paired_difference_is_narrower_than_the_values():
    """Prompts differ by 10, models by 0.5 on each: pairing sees it."""
    random = np.random.default_rng(2)
    difficulty = random.normal(0, 10, 100)
    better = difficulty + 0.5 + random.normal(0, 0.1, 100)
    estimate = bootstrap_difference(better, difficulty)
    assert estimate.low > 0.4
    assert estimate.high < 0.6
    assert estimate.low > 0 > bootstrap_mean(better).low


def test_constant_has_no_spread_and_nothing_has_no_size():
    assert bootstrap_mean([2.0, 2.0, 2.0]).to_json() == {"mean": 2, "low": 2, "high": 2, "n": 3}
    assert bootstrap_mean([]).n == 0


def test_same_seed_same_interval():
    values = np.arange(30.0)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)
