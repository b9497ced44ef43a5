"""Minibatches, denominators, clipping, schedules and skipped steps: exact, on toys."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tutelage.algorithms import LossOutput
from tutelage.config import BatchConfig, OptimizerConfig
from tutelage.errors import ModelError, TrainingError
from tutelage.trainers.learner import Learner, Optimizer, schedule

LENGTHS = (3, 1, 5, 2, 4, 1, 6, 2, 3)


@dataclass
class Rows:
    """Rows of inputs, of which the first `lengths[i]` count."""

    x: Tensor
    lengths: Sequence[int]
    empty: frozenset[int] = frozenset()
    ids: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def row_lengths(self) -> Sequence[int]:
        return self.lengths

    @property
    def mask(self) -> Tensor:
        rows = zip(self.ids, self.lengths, strict=True)
        ends = torch.tensor([0 if i in self.empty else n for i, n in rows])
        return torch.arange(self.x.shape[1]) < ends[:, None]

    @property
    def denominator(self) -> float:
        return float(self.mask.sum())

    def select(self, rows: Sequence[int]) -> "Rows":
        picked = [self.lengths[i] for i in rows]
        ids = [self.ids[i] for i in rows]
        return Rows(self.x[list(rows), : max(picked)], picked, self.empty, ids)


def make(dtype=torch.float64, lengths=LENGTHS, empty=()) -> Rows:
    x = torch.randn(len(lengths), max(lengths), 3, dtype=dtype)
    return Rows(x, lengths, frozenset(empty), range(len(lengths)))


def linear(dtype=torch.float64) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(3, 1).to(dtype)


FREE = OptimizerConfig(learning_rate=0.1, schedule="constant", max_gradient_norm=1e9)


@pytest.fixture(scope="module")
def learner_of(recording):
    """`learner_of(model, minibatch=4, tokens=7)`: a learner that keeps its gradients."""

    def build(model: nn.Module, *, config=FREE, still=True, minibatch=64, tokens=10**6) -> Learner:
        return Learner(
            {"model": recording(model, config, still=still)},
            BatchConfig(minibatch=minibatch, microbatch_tokens=tokens),
            torch.Generator().manual_seed(0),
        )

    return build


def squares(model: nn.Module):
    """The token mean of squared outputs."""

    def loss(rows: Rows, denominator: float) -> LossOutput:
        outputs = model(rows.x).squeeze(-1)
        total = torch.where(rows.mask, outputs.square(), 0).sum() / denominator
        seen = torch.tensor(float(max(rows.ids)))
        return LossOutput(total, {"tokens": rows.mask.sum() / denominator, "id_max": seen})

    return loss


def mean_square_gradient(model: nn.Linear, rows: Rows) -> Tensor:
    """By hand: the mean over tokens of 2 (w x + b) (x, 1)."""
    x = rows.x[rows.mask]
    outputs = x @ model.weight[0] + model.bias
    return torch.cat([(2 * outputs[:, None] * x).mean(0), (2 * outputs).mean()[None]]).detach()


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_gradients_do_not_depend_on_how_rows_are_cut_up(learner_of, dtype, close):
    rows, model = make(dtype), linear(dtype)
    expected = mean_square_gradient(model, rows)
    for tokens in (1, 6, 12, 24, 10**6):
        learner = learner_of(model, tokens=tokens)
        plan = learner.plan(rows)
        assert len(plan[0]) == 1
        metrics = learner.fit(squares(model), rows, plan)
        (gradient,) = learner.optimizers["model"].gradients
        assert (gradient - expected).norm() <= close * expected.norm()
        assert metrics["tokens"] == pytest.approx(1)
        assert metrics["id_max"] == 8
    assert len(learner_of(model, tokens=1).plan(rows)[0][0]) == 9


def test_mean_of_micro_batch_means_would_be_noticed():
    """Negative control: averaging each micro-batch's mean gives another gradient."""
    rows, model = make(), linear()
    means = [mean_square_gradient(model, rows.select([i])) for i in range(len(rows))]
    careless = torch.stack(means).mean(0)
    right = mean_square_gradient(model, rows)
    assert (careless - right).norm() > 0.05 * right.norm()


def test_one_step_on_a_whole_batch_is_one_minibatch(learner_of):
    rows, model = make(), linear()
    learner = learner_of(model, tokens=6)
    learner.step(squares(model), rows)
    (gradient,) = learner.optimizers["model"].gradients
    torch.testing.assert_close(gradient, mean_square_gradient(model, rows), rtol=1e-12, atol=0)


def test_empty_micro_batch_does_not_skip_the_step(learner_of):
    """The shortest rows come last: with row 1 and 5 empty, so is the last micro-batch."""
    rows, model = make(empty=(1, 5)), linear()
    learner = learner_of(model, tokens=1)
    plan = learner.plan(rows)
    assert rows.select(plan[0][0][-1]).denominator == 0
    learner.fit(squares(model), rows, plan)
    (gradient,) = learner.optimizers["model"].gradients
    torch.testing.assert_close(gradient, mean_square_gradient(model, rows), rtol=1e-12, atol=0)


def test_minibatch_without_anything_to_learn_is_skipped_and_counted(learner_of):
    rows, model = make(empty=range(9)), linear()
    learner = learner_of(model)
    before = [w.clone() for w in model.parameters()]

    def loss(part: Rows, denominator: float) -> LossOutput:
        return LossOutput(torch.where(part.mask, model(part.x).squeeze(-1), 0).sum(), {})

    metrics = learner.fit(loss, rows, learner.plan(rows))
    assert (learner.skipped, metrics["train/skipped"]) == (1, 1.0)
    assert learner.optimizers["model"].gradients == []
    assert all(w.equal(b) for w, b in zip(model.parameters(), before, strict=True))


@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 40), st.integers(1, 3))
def test_plan_takes_each_row_once_per_epoch(learner_of, count, minibatch, tokens, epochs):
    lengths = [1 + (7 * i) % 6 for i in range(count)]
    learner = learner_of(linear(), minibatch=minibatch, tokens=tokens)
    plan = learner.plan(make(lengths=lengths), epochs)
    assert len(plan) == epochs
    for epoch in plan:
        used = [row for step in epoch for part in step for row in part]
        assert sorted(used) == list(range(count))
        assert [sum(map(len, step)) for step in epoch[:-1]] == [minibatch] * (len(epoch) - 1)
        for part in (part for step in epoch for part in step):
            padded = len(part) * max(lengths[i] for i in part)
            assert padded <= tokens or len(part) == 1


def test_every_row_counts_once_per_epoch_in_the_loss(learner_of):
    model, seen = linear(), Counter()
    rows = make(lengths=[1 + i % 4 for i in range(13)])
    learner = learner_of(model, minibatch=4, tokens=7)

    def loss(part: Rows, denominator: float) -> LossOutput:
        seen.update(part.ids)
        return squares(model)(part, denominator)

    learner.fit(loss, rows, learner.plan(rows, 3))
    assert seen == dict.fromkeys(range(13), 3)
    assert len(learner.optimizers["model"].gradients) == 3 * 4


def test_epochs_are_permuted_and_repeat_with_the_seed(learner_of):
    rows = make(lengths=[2] * 12)
    first = learner_of(linear(), minibatch=4).plan(rows, 2)
    assert first == learner_of(linear(), minibatch=4).plan(rows, 2)
    assert first[0] != first[1]


def test_evaluation_puts_numbers_back_in_their_rows(learner_of):
    rows = make()
    learner = learner_of(linear(), minibatch=4, tokens=7)

    def compute(part: Rows) -> dict[str, Tensor]:
        return {"first": part.x[..., 0], "row": torch.tensor([float(i) for i in part.ids])}

    found = learner.evaluate(compute, rows, learner.plan(rows, 2))
    assert found["row"].tolist() == list(range(9))
    assert found["first"].shape == (9, 6)
    assert found["first"][rows.mask].equal(rows.x[..., 0][rows.mask])


def test_clipped_gradient_has_exactly_the_largest_norm(learner_of):
    rows = make()
    config = FREE.model_copy(update={"max_gradient_norm": 0.01})
    norms = []
    for tokens in (1, 10**6):
        model = linear()
        learner = learner_of(model, config=config, tokens=tokens)
        norms.append(learner.fit(squares(model), rows, learner.plan(rows))["model/gradient_norm"])
        (gradient,) = learner.optimizers["model"].gradients
        assert gradient.norm().item() == pytest.approx(0.01, rel=1e-4)
    assert norms[0] == pytest.approx(norms[1], rel=1e-12)
    assert norms[0] > 0.1


def test_each_model_is_clipped_by_itself(recording):
    large, small = linear(), linear()
    config = FREE.model_copy(update={"max_gradient_norm": 1.0})
    optimizers = {"large": recording(large, config), "small": recording(small, config)}
    learner = Learner(optimizers, BatchConfig(), torch.Generator())
    rows = make()

    def loss(part: Rows, denominator: float) -> LossOutput:
        return LossOutput(
            1e3 * squares(large)(part, denominator).loss
            + 1e-3 * squares(small)(part, denominator).loss,
            {},
        )

    metrics = learner.step(loss, rows)
    assert metrics["large/gradient_norm"] > 100
    assert optimizers["large"].gradients[0].norm().item() == pytest.approx(1, rel=1e-4)
    expected = 1e-3 * mean_square_gradient(small, rows)
    torch.testing.assert_close(optimizers["small"].gradients[0], expected)


@pytest.mark.parametrize("spoil", ["loss", "gradient of one model"])
def test_step_that_is_not_finite_is_skipped_for_all_models(spoil):
    models = {"policy": linear(), "value": linear()}
    optimizers = {name: Optimizer(model, FREE, 100) for name, model in models.items()}
    learner = Learner(optimizers, BatchConfig(), torch.Generator())
    before = {name: model.weight.detach().clone() for name, model in models.items()}
    rows = make()

    def loss(part: Rows, denominator: float, spoilt: bool = True) -> LossOutput:
        total = sum(squares(model)(part, denominator).loss for model in models.values())
        if spoilt and spoil == "loss":
            total = total + torch.nan
        if spoilt and spoil == "gradient of one model":
            # sqrt has value 0 and an infinite gradient at 0.
            total = total + (models["value"].weight - models["value"].weight.detach()).sum().sqrt()
        return LossOutput(total, {})

    def unspoilt(part: Rows, denominator: float) -> LossOutput:
        return loss(part, denominator, spoilt=False)

    for _ in range(2):
        assert learner.step(loss, rows)["train/skipped"] == 1
    assert all(model.weight.equal(before[name]) for name, model in models.items())
    assert learner.step(unspoilt, rows)["train/skipped"] == 0
    assert not any(model.weight.equal(before[name]) for name, model in models.items())
    assert all(weight.isfinite().all() for m in models.values() for weight in m.parameters())
    assert [optimizer.steps for optimizer in optimizers.values()] == [1, 1]
    learner.step(loss, rows)
    learner.step(loss, rows)
    with pytest.raises(TrainingError, match="3 optimiser steps in a row were not finite"):
        learner.step(loss, rows)
    assert learner.skipped == 5


def test_models_not_named_stay_bit_for_bit():
    trained, left = linear(), linear()
    optimizers = {"a": Optimizer(trained, FREE, 9), "b": Optimizer(left, FREE, 9)}
    learner = Learner(optimizers, BatchConfig(), torch.Generator())
    rows = make()

    def loss(part: Rows, denominator: float) -> LossOutput:
        both = (squares(model)(part, denominator).loss for model in (trained, left))
        return LossOutput(sum(both), {})

    metrics = learner.fit(loss, rows, learner.plan(rows, 3), train=["a"])
    assert left.weight.equal(linear().weight)
    assert not trained.weight.equal(linear().weight)
    assert left.weight.grad is None
    assert "b/gradient_norm" not in metrics


def test_stop_is_asked_before_the_step_and_ends_the_updates(learner_of):
    model = linear()
    learner = learner_of(model, minibatch=3, still=False)
    rows = make()
    asked = []

    def stop(metrics) -> bool:
        asked.append(metrics["loss"])
        return len(asked) == 3

    metrics = learner.fit(squares(model), rows, learner.plan(rows, 2), stop=stop)
    assert len(learner.optimizers["model"].gradients) == 2
    assert metrics["train/stopped_early"] == 1
    assert metrics["loss"] == pytest.approx(sum(asked) / 3)
    assert all(weight.grad is None for weight in model.parameters())


def test_metrics_of_minibatches_are_means_and_extremes(learner_of):
    model = linear()
    learner = learner_of(model, minibatch=3)
    rows = make()
    losses = []
    metrics = learner.fit(
        squares(model), rows, learner.plan(rows), observe=lambda m: losses.append(m["loss"])
    )
    assert len(losses) == 3
    assert metrics["loss"] == pytest.approx(sum(losses) / 3)
    assert metrics["id_max"] == 8


# The optimiser.


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
    state = optimizer.adamw.state_dict()["state"]
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
    (state,) = optimizer.adamw.state_dict()["state"].values()
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
        assert [g["lr"] for g in optimizer.adamw.param_groups] == pytest.approx([expected] * 2)
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


def test_optimiser_goes_on_where_it_was_saved():
    config = OptimizerConfig(learning_rate=0.01, schedule="cosine")
    gradients = torch.randn(8, 4, 4)

    def steps(optimizer: Optimizer, which: range) -> None:
        for i in which:
            optimizer.weights[0].grad = gradients[i].clone()
            optimizer.step()

    straight = Optimizer(one_weight(4, 4), config, 8)
    steps(straight, range(8))
    first = Optimizer(one_weight(4, 4), config, 8)
    steps(first, range(4))
    second = Optimizer(one_weight(4, 4), config, 8)
    with torch.no_grad():
        second.weights[0].copy_(first.weights[0])
    second.load_state_dict(first.state_dict())
    steps(second, range(4, 8))
    assert second.weights[0].equal(straight.weights[0])


def test_learner_goes_on_bit_for_bit_from_its_saved_state(learner_of):
    batch = make(torch.float32)

    def learner() -> tuple[nn.Module, Learner]:
        model = linear(torch.float32)
        return model, learner_of(model, still=False, minibatch=2)

    def fit(learner: Learner, model: nn.Module, times: int) -> None:
        for _ in range(times):
            learner.fit(squares(model), batch, learner.plan(batch))

    straight_model, straight = learner()
    fit(straight, straight_model, 4)
    first_model, first = learner()
    fit(first, first_model, 2)
    first.skipped = 3
    second_model, second = learner()
    second_model.load_state_dict(first_model.state_dict())
    second.load_state_dict(first.state_dict())
    fit(second, second_model, 2)
    assert second_model.weight.equal(straight_model.weight)
    assert second.skipped == 3
    # The order of the rows is part of it: from another order other weights follow.
    other_model, other = learner()
    other_model.load_state_dict(first_model.state_dict())
    state = first.state_dict()
    other.load_state_dict({**state, "generator": torch.Generator().manual_seed(9).get_state()})
    fit(other, other_model, 2)
    assert not other_model.weight.equal(straight_model.weight)
