import math

import pytest
import torch
from benchmarks.core.row import Check
from benchmarks.rows.ppo import OurPPO
from benchmarks.rows.update import OurUpdate
from benchmarks.sides.learning import no_reward, update_parity
from benchmarks.sides.parity import chi_square, chi_square_tail

REQUESTS = {"shape": "micro", "count": 6, "shortest": 3, "longest": 6, "answer": 8}


@pytest.mark.parametrize(
    ("statistic", "freedom", "tail"),
    # Percentage points of the chi-square distribution, from tables.
    [(3.841459, 1, 0.05), (18.307038, 10, 0.05), (29.588298, 10, 0.001), (0.0, 4, 1.0)],
)
def test_tail_of_chi_square_is_that_of_the_tables(statistic, freedom, tail):
    assert chi_square_tail(statistic, freedom) == pytest.approx(tail, rel=1e-4)


def test_chi_square_of_a_hand_made_table():
    drawn = torch.tensor([0] * 60 + [1] * 40)
    statistic, freedom = chi_square(drawn, torch.tensor([0.5, 0.5]), bins=2)
    assert (statistic, freedom) == (pytest.approx(4.0), 1)


def test_right_draws_pass_and_wrong_draws_fail():
    weights = torch.rand(200, generator=torch.Generator().manual_seed(0))
    probabilities = weights / weights.sum()
    right = torch.multinomial(probabilities, 4096, replacement=True)
    assert chi_square_tail(*chi_square(right, probabilities, 32)) > 1e-3
    hotter = probabilities**0.7
    wrong = torch.multinomial(hotter / hotter.sum(), 4096, replacement=True)
    assert chi_square_tail(*chi_square(wrong, probabilities, 32)) < 1e-6


def test_a_value_that_is_no_number_keeps_the_gate_shut():
    assert not Check("x", math.nan, 1.0).passed
    assert Check("x", 1.0, 1.0).passed


@pytest.fixture(scope="module")
def update():
    side = OurUpdate(REQUESTS, "float32", microbatch_tokens=24)
    side.prepare()
    return side


def test_update_agrees_with_unpacked_rows(update):
    checks = update.check()
    assert len(checks) == 4
    assert all(check.passed for check in checks), checks


def test_update_gate_shuts_when_the_loss_is_another(update):
    settings = update.actors.settings
    update.actors.settings = settings.model_copy(update={"clip": 0.7, "value_coefficient": 0.11})
    try:
        *of_gradients, of_step = update.check()
        assert not any(check.passed for check in of_gradients)
        assert of_step.passed
    finally:
        update.actors.settings = settings


def test_step_gate_shuts_when_weights_meet_the_gradients_of_others(update, monkeypatch):
    algorithm = update.actors.learner.optimizers["policy"].algorithm
    step = algorithm.step

    def transposed() -> None:
        for weight in update.actors.learner.optimizers["policy"].weights:
            if weight.ndim == 2:
                weight.grad = weight.grad.t().reshape(weight.shape)
        step()

    monkeypatch.setattr(algorithm, "step", transposed)
    *of_gradients, of_step = update.check()
    assert all(check.passed for check in of_gradients)
    assert not of_step.passed


def test_rounding_of_bfloat16_passes_and_another_loss_does_not():
    side = OurUpdate(REQUESTS, "bfloat16", microbatch_tokens=24)
    side.prepare()
    assert all(check.passed for check in side.check())
    side.actors.settings = side.actors.settings.model_copy(
        update={"clip": 0.7, "value_coefficient": 0.11}
    )
    gradients = [check for check in side.check() if "gradient" in check.name]
    assert len(gradients) == 2
    assert not any(check.passed for check in gradients)


@pytest.mark.parametrize("frozen_layers", [0, 1])
def test_update_of_a_shared_trunk_agrees_with_unpacked_rows(frozen_layers):
    side = OurPPO(
        REQUESTS,
        microbatch_tokens=24,
        head_tokens=5,
        trunk="shared",
        frozen_layers=frozen_layers,
    )
    side.build()
    captured = side.actors.learner.capture(
        side.actors.steps(side.requests, side.actors.scripted(side.requests), no_reward)
    )
    checks = update_parity(side.actors, captured, "float32")
    assert len(checks) == 4
    assert all(check.passed for check in checks), checks
