import math
import random
from statistics import median

import pytest
from benchmarks.core.statistics import median_interval, noisy_sides, ratio, spread


def test_spread_is_the_range_of_the_middle_half_over_the_median():
    # Quartiles of 0, 1 ... 4 are 1 and 3.
    assert spread([10.0, 11.0, 12.0, 13.0, 14.0]) == pytest.approx(2.0 / 12.0)
    assert spread([5.0, 5.0]) == 0.0
    assert spread([5.0]) == 0.0
    assert spread([0.0, 0.0]) == math.inf


def test_one_disturbed_turn_in_six_discards_nothing_but_widens_the_interval():
    quiet, disturbed = [10.0] * 6, [10.0] * 5 + [14.0]
    assert spread(disturbed) == 0.0
    assert noisy_sides({"A": {"wall_s": disturbed}}) == {}
    assert ratio(quiet, disturbed).high == pytest.approx(1.4)


def test_two_disturbed_turns_in_six_discard_the_side():
    assert list(noisy_sides({"A": {"wall_s": [10.0] * 4 + [14.0] * 2}})) == ["A"]


@pytest.mark.parametrize(
    ("repeats", "confidence", "low", "high"),
    [
        # 1 - 2 (1/2)^n for smallest and largest; tables of the sign test for the rest.
        (5, 0.9375, 1, 5),
        (6, 0.96875, 1, 6),
        (8, 1 - 2 / 256, 1, 8),
        (9, 1 - 2 * (1 + 9) / 512, 2, 8),
        (12, 1 - 2 * (1 + 12 + 66) / 4096, 3, 10),
    ],
)
def test_interval_of_the_median_has_its_exact_confidence(repeats, confidence, low, high):
    values = [float(i) for i in range(1, repeats + 1)]
    assert median_interval(values) == (low, high, pytest.approx(confidence))


def test_interval_covers_a_known_median_as_often_as_it_says():
    draw = random.Random(0)
    covered = 0
    for _ in range(4000):
        low, high, confidence = median_interval([draw.expovariate(1.0) for _ in range(6)])
        covered += low < 0.6931471805599453 < high
    # Three standard errors of a share of 4000.
    assert covered / 4000 == pytest.approx(confidence, abs=0.009)


def test_ratio_is_that_of_rounds_not_of_medians():
    ours, peer = [1.0, 2.0, 4.0], [2.0, 4.0, 8.0]
    found = ratio(ours, peer)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)
    assert median(peer) / median(ours) == 2.0
    drifting = ratio([1.0, 10.0, 1.0], [3.0, 30.0, 6.0])
    assert (drifting.value, drifting.low, drifting.high) == (3.0, 3.0, 6.0)


def test_ratio_wants_as_many_of_one_side_as_of_the_other():
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])


def test_quiet_sides_count_and_a_noisy_one_is_named():
    quiet = {"tutelage": {"wall_s": [1.0, 1.05, 1.09]}, "peer": {"wall_s": [3.0, 3.1, 3.2]}}
    assert noisy_sides(quiet) == {}
    noisy = noisy_sides({**quiet, "peer": {"wall_s": [3.0, 3.1, 3.9]}})
    assert list(noisy) == ["peer"]
    assert "peer differs from itself by 15% in wall_s" in noisy["peer"]


def test_one_noisy_quantity_is_enough():
    assert list(noisy_sides({"a": {"wall_s": [1.0, 1.0], "cpu_s": [1.0, 1.3]}})) == ["a"]
