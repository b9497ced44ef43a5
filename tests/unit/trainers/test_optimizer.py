"""Optimisers against their formulas in float64, their schedule, and their state."""

import importlib.util
import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from tutelage.config import OptimizerConfig
from tutelage.errors import CheckpointError, ModelError
from tutelage.trainers.optimizer import Optimizer, schedule
from tutelage.trainers.state import load_parts, save_parts

eight_bit = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
ALGORITHMS = ("adamw", pytest.param("adamw8bit", marks=eight_bit), "adafactor")


def one_weight(*shape: int, value: float = 0.05) -> nn.Module:
    model = nn.Module()
    model.weight = nn.Parameter(torch.full(shape, value))
    return model


@pytest.mark.parametrize(("epsilon", "share"), [(1e-8, 0.999), (1e-5, 0.5)])
def test_first_step_shrinks_with_epsilon_where_gradients_are_small(epsilon, share):
    """|g| = 1e-5: a step of lr g / (|g| + eps)."""
    config = OptimizerConfig(learning_rate=1e-3, schedule="constant", epsilon=epsilon)
    model = one_weight(1, value=0.0)
    optimizer = Optimizer(model, config, 10)
    model.weight.grad = torch.full((1,), 1e-5)
    optimizer.step()
    assert model.weight.item() == pytest.approx(-1e-3 * share, rel=1e-3)


def test_default_epsilon_is_that_of_the_ppo_literature():
    assert OptimizerConfig().epsilon == 1e-5


def test_float32_weights_all_move_at_small_learning_rates():
    model = one_weight(100, 100)
    with torch.no_grad():
        model.weight.copy_(0.05 * torch.randn(100, 100))
    before = model.weight.detach().clone()
    optimizer = Optimizer(model, OptimizerConfig(learning_rate=3e-6, schedule="constant"), 100)
    # Negative control: the same steps on bfloat16 weights are rounded away.
    coarse = nn.Parameter(before.bfloat16())
    careless = torch.optim.AdamW([coarse], lr=3e-6, weight_decay=0.0)
    for _ in range(100):
        model.weight.grad, coarse.grad = torch.ones_like(before), torch.ones_like(coarse)
        optimizer.step()
        careless.step()
    assert (model.weight != before).float().mean() >= 0.999
    assert (coarse != before.bfloat16()).float().mean() < 0.05
    state = optimizer.algorithm.state_dict()["state"]
    assert {t.dtype for s in state.values() for t in s.values() if t.ndim} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights_are_refused(dtype):
    with pytest.raises(ModelError, match="expected float32 master weights"):
        Optimizer(one_weight(3).to(dtype), OptimizerConfig(), 10)


def test_second_moment_decays_without_gradient():
    model = one_weight(1)
    optimizer = Optimizer(model, OptimizerConfig(), 2000)
    for step in range(1001):
        model.weight.grad = torch.full((1,), 1.0 if step == 0 else 0.0)
        optimizer.step()
    (state,) = optimizer.algorithm.state_dict()["state"].values()
    assert state["exp_avg_sq"].item() == pytest.approx(1e-3 * 0.999**1000, rel=1e-3)


def test_decay_spares_biases_and_norms():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    config = OptimizerConfig(learning_rate=0.1, schedule="constant", weight_decay=0.5)
    optimizer = Optimizer(model, config, 10)
    before = {name: w.detach().clone() for name, w in model.named_parameters()}
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    changed = {n for n, w in model.named_parameters() if not w.equal(before[n])}
    assert changed == {"0.weight"}
    torch.testing.assert_close(model[0].weight, 0.95 * before["0.weight"])
    assert OptimizerConfig().weight_decay == 0


def test_all_groups_follow_the_schedule():
    model = nn.Linear(4, 4)
    config = OptimizerConfig(learning_rate=0.1, schedule="linear", floor=0.1)
    optimizer = Optimizer(model, config, 10)
    for taken in range(10):
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        expected = 0.1 * (1 - 0.9 * taken / 10)
        assert optimizer.learning_rate == pytest.approx(expected)
        optimizer.step()
        assert [g["lr"] for g in optimizer.algorithm.param_groups] == pytest.approx([expected] * 2)
    assert optimizer.learning_rate == pytest.approx(0.01)


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_schedule_rises_then_falls_to_its_floor(kind, floor):
    config = OptimizerConfig(schedule=kind, floor=floor, warmup=0.2)
    rates = [schedule(config, step, 100) for step in range(101)]
    rising, falling = rates[:21], rates[20:]
    assert rising == sorted(rising)
    assert 0 < rates[0] < 0.1
    assert max(rates) == rates[20] == 1
    assert falling == sorted(falling, reverse=True)
    assert rates[100] == pytest.approx(1.0 if kind == "constant" else floor)
    assert schedule(config, 500, 100) == pytest.approx(rates[100])
    middle = {"cosine": (1 + floor) / 2, "linear": (1 + floor) / 2, "constant": 1}
    assert rates[60] == pytest.approx(middle[kind])


def test_cosine_is_a_cosine():
    config = OptimizerConfig(schedule="cosine")
    assert schedule(config, 25, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


# The algorithms.


def settings(algorithm: str, **changes) -> OptimizerConfig:
    base = {"learning_rate": 0.01, "schedule": "constant", "epsilon": 1e-8}
    return OptimizerConfig(algorithm=algorithm, **{**base, **changes})


def take_steps(model: nn.Module, optimizer: Optimizer, gradients: list[list[Tensor]]) -> None:
    for step in gradients:
        for weight, gradient in zip(model.parameters(), step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()


def adamw_by_hand(weight: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    """Loshchilov & Hutter 2019, algorithm 2, at rate 0.01."""
    m, v = torch.zeros_like(weight), torch.zeros_like(weight)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        corrected = (v / (1 - 0.999**t)).sqrt() + 1e-8
        weight = weight - 0.01 * (m / (1 - 0.9**t) / corrected + decay * weight)
    return weight


def adafactor_by_hand(weight: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    """Shazeer & Stern 2018, algorithms 4 and 5: steps relative to the weight's size."""
    rows = columns = full = 0.0
    for t, g in enumerate(gradients, 1):
        kept = 1 - t**-0.8
        size = max(1e-3, weight.square().mean().sqrt().item())
        if g.ndim == 2:
            rows = kept * rows + (1 - kept) * g.square().mean(1)
            columns = kept * columns + (1 - kept) * g.square().mean(0)
            v = torch.outer(rows, columns) / rows.mean()
        else:
            v = full = kept * full + (1 - kept) * g.square()
        step = g / v.sqrt()
        step = step / max(1.0, step.square().mean().sqrt().item())
        weight = weight * (1 - 0.01 * decay) - size * min(0.01, t**-0.5) * step
    return weight


BY_HAND = {"adamw": adamw_by_hand, "adafactor": adafactor_by_hand}


@pytest.mark.parametrize("algorithm", list(BY_HAND))
def test_three_steps_are_those_of_the_formula(algorithm):
    model = nn.Linear(5, 3).double()
    optimizer = Optimizer(model, settings(algorithm, weight_decay=0.1), 10)
    before = [weight.detach().clone() for weight in model.parameters()]
    gradients = [[torch.randn_like(weight) for weight in before] for _ in range(3)]
    take_steps(model, optimizer, gradients)
    for i, decay in enumerate((0.1, 0.0)):
        expected = BY_HAND[algorithm](before[i], [step[i] for step in gradients], decay)
        found = list(model.parameters())[i].detach()
        assert (found - before[i]).abs().min() > 1e-6
        # torch keeps Adafactor's decay, a power of the step, in single precision.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@eight_bit
@pytest.mark.parametrize(("steps", "close"), [(1, 1e-6), (5, 2e-2)])
def test_eight_bits_are_near_the_formula(steps, close):
    """The first step is exact; later ones use moments that were rounded to 8 bits in between.

    `close` is relative to the distance travelled: rounding the moments costs about a hundredth.
    """
    model = nn.Linear(128, 64)
    optimizer = Optimizer(model, settings("adamw8bit", weight_decay=0.1), 10)
    before = model.weight.detach().clone()
    gradients = [[torch.randn_like(weight) for weight in model.parameters()] for _ in range(steps)]
    take_steps(model, optimizer, gradients)
    expected = adamw_by_hand(before.double(), [step[0].double() for step in gradients], 0.1)
    gap = (model.weight - expected).norm() / (expected - before).norm()
    assert gap < close
    moments = optimizer.state_dict()["moments"]["0"]["__bnb_optimizer_quant_state__"]
    assert moments["state1"].dtype == moments["state2"].dtype == torch.uint8


def test_adafactor_keeps_rows_and_columns_instead_of_a_matrix():
    model = one_weight(40, 30)
    optimizer = Optimizer(model, settings("adafactor"), 10)
    take_steps(model, optimizer, [[torch.ones(40, 30)]])
    (moments,) = optimizer.state_dict()["moments"].values()
    assert sum(part.numel() for part in moments.values()) == 40 + 30 + 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_follows_the_schedule_and_spares_what_has_no_gradient(algorithm):
    model = nn.Linear(70, 70)
    config = settings(algorithm, schedule="linear", weight_decay=0.5)
    optimizer = Optimizer(model, config, 4)
    before = [weight.detach().clone() for weight in model.parameters()]
    shrunk = 1.0
    for rate in (0.01, 0.0075, 0.005, 0.0025):
        assert optimizer.learning_rate == pytest.approx(rate)
        take_steps(model, optimizer, [[torch.zeros_like(weight) for weight in before]])
        shrunk *= 1 - 0.5 * rate
    torch.testing.assert_close(model.weight, shrunk * before[0], rtol=1e-5, atol=0)
    assert model.bias.equal(before[1])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_clipping_is_the_same_for_every_algorithm(algorithm):
    model = one_weight(3, 4, value=1.0)
    optimizer = Optimizer(model, settings(algorithm, max_gradient_norm=0.5), 4)
    model.weight.grad = torch.full((3, 4), 2.0)
    assert optimizer.clip() == pytest.approx(2 * math.sqrt(12))
    assert model.weight.grad.norm().item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_optimiser_goes_on_bit_for_bit_from_its_files(algorithm, tmp_path):
    config = settings(algorithm, schedule="cosine", weight_decay=0.1)
    shapes = [(80, 80), (80,)]
    gradients = [[torch.randn(shape) for shape in shapes] for _ in range(8)]

    def begin() -> tuple[nn.Module, Optimizer]:
        model = nn.Linear(80, 80)
        nn.init.constant_(model.weight, 0.05)
        nn.init.constant_(model.bias, 0.05)
        return model, Optimizer(model, config, 8)

    straight, optimizer = begin()
    take_steps(straight, optimizer, gradients)
    first, optimizer = begin()
    take_steps(first, optimizer, gradients[:4])
    save_parts({"model": first, "optimizer": optimizer}, tmp_path)
    second, optimizer = begin()
    load_parts({"model": second, "optimizer": optimizer}, tmp_path)
    # Negative control: without its moments the optimiser goes elsewhere.
    forgetful, other = begin()
    forgetful.load_state_dict(second.state_dict())
    other.steps = 4
    take_steps(second, optimizer, gradients[4:])
    take_steps(forgetful, other, gradients[4:])
    assert second.weight.equal(straight.weight)
    assert second.bias.equal(straight.bias)
    assert not forgetful.weight.equal(straight.weight)


def test_state_of_another_algorithm_is_refused(tmp_path):
    save_parts({"optimizer": Optimizer(one_weight(3, 3), settings("adamw"), 8)}, tmp_path)
    with pytest.raises(CheckpointError, match="state of adamw, expected adafactor"):
        load_parts({"optimizer": Optimizer(one_weight(3, 3), settings("adafactor"), 8)}, tmp_path)


def test_eight_bits_that_are_not_installed_name_the_extra():
    code = (
        "import sys; sys.modules['bitsandbytes'] = None\n"
        "import torch\n"
        "from tutelage.config import OptimizerConfig\n"
        "from tutelage.errors import MissingExtraError\n"
        "from tutelage.trainers.optimizer import Optimizer\n"
        "try:\n    Optimizer(torch.nn.Linear(2, 2), OptimizerConfig(algorithm='adamw8bit'), 1)\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        "bitsandbytes is not installed: pip install 'tutelage[optimizers]'"
    )
