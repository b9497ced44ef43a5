"""Minibatches, denominators, clipping, schedules and skipped steps: exact, on toys."""

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
from tutelage.distributed import Cores
from tutelage.errors import TrainingError
from tutelage.trainers.learner import Learner
from tutelage.trainers.optimizer import Optimizer

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
    with pytest.raises(TrainingError, match=r"3 of 4 optimiser steps.* were not finite"):
        learner.step(loss, rows)
    assert learner.skipped == 2
    assert learner.guard.skipped == 3


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


def test_number_of_cores_changes_no_bit():
    def trained(count: int) -> tuple[list[Tensor], dict[str, float]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1, bias=False))
        learner = Learner(
            {"model": Optimizer(model, FREE, 10)},
            BatchConfig(minibatch=6, microbatch_tokens=6),
            torch.Generator().manual_seed(1),
            cores=Cores(count),
        )
        rows = make(torch.float32)

        def loss(part: Rows, denominator: float) -> LossOutput:
            error = model(part.x).squeeze(-1).square()[part.mask].sum() / denominator
            return LossOutput(error, {"largest_max": error.detach()})

        metrics = learner.fit(loss, rows, learner.plan(rows, epochs=2))
        outputs = learner.evaluate(
            lambda part: {"outputs": model(part.x).squeeze(-1)}, rows, learner.plan(rows)
        )
        return [*model.parameters(), outputs["outputs"]], metrics

    alone, metrics = trained(1)
    for count in (2, 3):
        together, others = trained(count)
        assert all(a.equal(b) for a, b in zip(alone, together, strict=True))
        assert others == metrics


def test_weights_given_one_gradient_are_clipped_once_each():
    """The gradient of a sum is the same tensor for both terms."""

    def gradients(count: int) -> list[Tensor]:
        model = nn.ParameterDict({name: nn.Parameter(torch.ones(2)) for name in "ab"})
        learner = Learner(
            {"model": Optimizer(model, FREE.model_copy(update={"max_gradient_norm": 0.1}), 10)},
            BatchConfig(minibatch=9, microbatch_tokens=6),
            torch.Generator().manual_seed(1),
            cores=Cores(count),
        )
        learner.step(lambda part, n: LossOutput((model["a"] + model["b"]).sum() / n, {}), make())
        return [weight.detach() for weight in model.values()]

    assert all(a.equal(b) for a, b in zip(gradients(1), gradients(2), strict=True))


def test_gradients_that_lie_in_another_order_than_their_weight():
    """The fused AdamW of torch ignores the order, and would pair weights with others' numbers."""
    towards = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))

    def step(count: int) -> Tensor:
        weight = nn.Parameter(torch.zeros(4, 8))
        learner = Learner(
            {"model": Optimizer(nn.ParameterList([weight]), FREE, 10)},
            BatchConfig(minibatch=9, microbatch_tokens=6),
            torch.Generator().manual_seed(1),
            cores=Cores(count),
        )
        learner.step(lambda part, n: LossOutput(-(weight.t() * towards).sum() / n, {}), make())
        return weight.detach()

    for count in (1, 2):
        assert step(count).sign().equal(towards.t().sign())
