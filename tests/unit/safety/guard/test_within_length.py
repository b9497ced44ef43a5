"""Gains within lengths: by hand, and in the two extremes."""

import math

import numpy as np
import pytest

from tutelage.safety.guard.within_length import within_length_gain


def test_hand_computed_buckets():
    """Bucket 0-19: 2 answers of mean 1 before, 1 of 2 after. 20-39: 1 of 3 before, 2 of 6 after."""
    gain = within_length_gain([5, 19, 20], [0, 2, 3], [10, 25, 39], [2, 5, 7])
    assert gain.whole == pytest.approx(14 / 3 - 5 / 3)
    assert gain.within == pytest.approx((3 * 1 + 3 * 3) / 6)


def test_lengths_that_never_meet_leave_nothing_to_compare():
    gain = within_length_gain([5, 6], [0, 0], [50, 60], [1, 1])
    assert math.isnan(gain.within)
    assert gain.p_below(0.5) == 1.0


def test_gain_at_equal_lengths_is_all_within():
    rng = np.random.default_rng(0)
    lengths, rewards = rng.integers(5, 60, 100), rng.normal(size=100)
    gain = within_length_gain(lengths, rewards, lengths, rewards + 1.0)
    assert gain.within == pytest.approx(gain.whole)
    assert gain.p_below(0.9) > 0.5


def test_answers_without_a_score_are_left_out():
    gain = within_length_gain([5, 5, 5], [0, 0, math.nan], [5, 5, 5], [1, 1, 9])
    assert (gain.whole, gain.within) == (1.0, 1.0)
    assert math.isnan(within_length_gain([5], [0], [5], [1]).whole)
