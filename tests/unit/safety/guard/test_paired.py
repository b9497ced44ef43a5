"""The paired test: against printed tables, closed forms and a simulated null."""

import math

import numpy as np
import pytest

from tutelage.safety.guard.paired import mean_above, student_tail


@pytest.mark.parametrize(
    ("t", "df", "p"),
    [
        # Critical values as printed in every table of the t distribution.
        (6.3138, 1, 0.05),
        (2.0150, 5, 0.05),
        (3.3649, 5, 0.01),
        (2.7638, 10, 0.01),
        (3.3852, 30, 0.001),
        (3.1595, 120, 0.001),
    ],
)
def test_tail_is_that_of_the_tables(t, df, p):
    # Printed to four decimals of t.
    assert student_tail(t, df) == pytest.approx(p, rel=2e-4)


def test_one_and_two_degrees_of_freedom_have_closed_forms():
    for t in (-3.0, -0.5, 0.0, 0.2, 1.0, 40.0):
        assert student_tail(t, 1) == pytest.approx(0.5 - math.atan(t) / math.pi, abs=1e-12)
        closed = 0.5 - t / (2 * math.sqrt(2 + t * t))
        assert student_tail(t, 2) == pytest.approx(closed, abs=1e-12)


def test_many_degrees_of_freedom_are_the_normal_distribution():
    for t in (0.0, 1.0, 2.5, 4.0):
        normal = 0.5 * math.erfc(t / math.sqrt(2))
        assert student_tail(t, 10_000_000) == pytest.approx(normal, rel=1e-5)


def test_infinite_evidence_is_certain():
    assert student_tail(math.inf, 5) == 0.0
    assert student_tail(-math.inf, 5) == 1.0


def test_hand_computed_sample():
    """Mean 2, standard deviation sqrt(24 / 7), n 8."""
    values = [0, 0, 2, 2, 2, 2, 4, 4]
    std = math.sqrt((4 + 4 + 4 + 4) / 7)
    t = (2 - 1) / (std / math.sqrt(8))
    assert mean_above(values, 1.0) == pytest.approx(student_tail(t, 7), abs=1e-12)


def test_few_pairs_prove_nothing():
    assert mean_above([5.0] * 7) == 1.0
    assert mean_above([5.0] * 7 + [math.nan] * 20) == 1.0
    assert mean_above([5.0] * 8) == 0.0


def test_values_that_are_all_at_the_limit_are_not_above_it():
    assert mean_above([0.0] * 50) == 1.0
    assert mean_above([0.3] * 50, 0.3) == 1.0


@pytest.mark.parametrize("law", ["normal", "skewed", "shares"])
def test_false_alarms_under_the_null_are_as_many_as_the_level_says(law):
    rng = np.random.default_rng(7)
    draws = {
        "normal": lambda: rng.normal(size=64),
        # Differences of two exponentials: heavy tails, as scores have.
        "skewed": lambda: rng.exponential(size=64) - rng.exponential(size=64),
        # Differences of two shares, as of answers that end.
        "shares": lambda: rng.binomial(1, 0.2, 64) - rng.binomial(1, 0.2, 64),
    }
    alarms = np.mean([mean_above(draws[law]()) <= 0.05 for _ in range(1000)])
    # Three standard errors of a share of 5 % over 1000 draws are 2 points.
    assert abs(alarms - 0.05) < 0.02


def test_power_grows_with_the_drift():
    rng = np.random.default_rng(8)

    def caught(drift: float) -> float:
        return float(np.mean([mean_above(rng.normal(drift, 1, 128)) < 0.001 for _ in range(100)]))

    assert caught(0.0) < 0.02
    # Power of a z-test: Phi(0.5 * sqrt(128) - 3.09) = 0.995.
    assert caught(0.5) > 0.95
