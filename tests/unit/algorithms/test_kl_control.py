"""The KL coefficient: hand-computed updates, refusals, and convergence on a simulated plant."""

import math

import pytest

from tutelage.algorithms import AdaptiveKL, FixedKL


def adaptive(coefficient=0.15):
    return AdaptiveKL(coefficient, target=6.0, horizon=10_000)


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (12.0, 0.151536),
        (6.3, 0.150384),
        (6.0, 0.15),
        (3.0, 0.148464),
        (0.0, 0.148464),
        (-2.0, 0.148464),
    ],
)
def test_one_update(kl, expected):
    controller = adaptive()
    assert controller.update(kl, 512)
    assert controller.value == pytest.approx(expected, abs=1e-12)


def test_a_hundred_updates_at_twice_the_target():
    controller = adaptive()
    for _ in range(100):
        controller.update(12.0, 512)
    # 0.15 * (1 + 0.2 * 0.0512) ** 100
    assert controller.value == pytest.approx(0.415477280, abs=1e-9)


@pytest.mark.parametrize("n", [60_000, 50_000, 0, -1])
def test_rollouts_that_could_turn_beta_negative_are_refused(n):
    # The formula would give 0.15 (1 - 0.2 · 6) = -0.03 for the first and 0 for the second.
    controller = adaptive()
    with pytest.raises(ValueError, match="horizon"):
        controller.update(0.0, n)
    assert controller.value == 0.15


@pytest.mark.parametrize("kl", [math.nan, math.inf, -math.inf])
def test_a_kl_that_is_no_number_keeps_beta_and_says_so(kl):
    controller = adaptive()
    assert controller.update(kl, 512) is False
    assert controller.value == 0.15
    assert FixedKL(0.05).update(kl, 512) is False


def test_beta_can_be_multiplied_from_outside_and_keeps_it_in_its_state():
    for controller in (FixedKL(0.05), AdaptiveKL(0.05, target=6.0, horizon=10_000)):
        controller.scale(3.0)
        assert controller.value == pytest.approx(0.15)
        assert controller.state_dict() == {"coefficient": controller.value}


def test_beta_settles_where_the_plant_meets_the_target():
    # A policy whose divergence is inversely proportional to the penalty.
    controller = AdaptiveKL(1.0, target=6.0, horizon=10_000)
    for _ in range(1000):
        controller.update(0.9 / controller.value, 512)
    assert 0.9 / controller.value == pytest.approx(6.0, rel=1e-4)


def test_state_continues_where_it_stopped():
    straight, first, second = adaptive(), adaptive(), adaptive(coefficient=99.0)
    for kl in (9.0, 7.0):
        straight.update(kl, 512)
    first.update(9.0, 512)
    second.load_state_dict(first.state_dict())
    second.update(7.0, 512)
    assert second.value == straight.value


def test_a_fixed_coefficient_stays():
    controller = FixedKL(0.05)
    assert controller.update(100.0, 512)
    assert controller.value == 0.05
    other = FixedKL(0.0)
    other.load_state_dict(controller.state_dict())
    assert other.value == 0.05


@pytest.mark.parametrize("wrong", [{"coefficient": 0}, {"target": -1}, {"horizon": math.nan}])
def test_adaptive_settings_must_be_positive(wrong):
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=name):
        AdaptiveKL(**{"coefficient": 0.1, "target": 6, "horizon": 100, **wrong})


@pytest.mark.parametrize("wrong", [-0.1, math.nan])
def test_a_fixed_coefficient_is_not_negative(wrong):
    with pytest.raises(ValueError, match="coefficient"):
        FixedKL(wrong)
