"""Memory that runs out in an update: a smaller budget, the same gradients."""

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import pytest
import torch
from torch import Tensor, nn

from tutelage.algorithms import LossOutput
from tutelage.config import BatchConfig, OptimizerConfig
from tutelage.distributed import Cores
from tutelage.errors import TrainingError
from tutelage.experience import TokenBatch
from tutelage.models.memory import out_of_memory
from tutelage.models.microbatches import BudgetHalved, MicroBatches
from tutelage.trainers.learner import Learner

LENGTHS = (3, 2, 5, 2, 4, 2, 6, 2, 3)
CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def batch_of(lengths: Sequence[int] = LENGTHS) -> TokenBatch:
    return TokenBatch.collate(
        [([1 + (7 * i + t) % 5 for t in range(n)], [1.0] * n) for i, n in enumerate(lengths)], pad=0
    )


class Model(nn.Module):
    """Two layers over token ids, in float64."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.first = nn.Embedding(8, 4, dtype=torch.float64)
            self.second = nn.Linear(4, 1, dtype=torch.float64)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.second(self.first(tokens).tanh()).squeeze(-1)


def squares(model: Model, before: Callable[[TokenBatch], None] = lambda rows: None):
    def loss(rows: TokenBatch, denominator: float) -> LossOutput:
        before(rows)
        outputs = torch.where(rows.response_mask, model(rows.tokens), 0)
        return LossOutput(outputs.square().sum() / denominator, {})

    return loss


@pytest.fixture(scope="module")
def learner_of(recording):
    def build(model: nn.Module, tokens: int = 10**6, minibatch: int = 64) -> Learner:
        heard: list[str] = []
        learner = Learner(
            {"model": recording(model, OptimizerConfig(max_gradient_norm=1e9))},
            BatchConfig(minibatch=minibatch, microbatch_tokens=tokens),
            torch.Generator().manual_seed(0),
            notify=heard.append,
        )
        learner.heard = heard
        return learner

    return build


def device_of(tokens: int, error: Exception) -> Callable[[TokenBatch], None]:
    """A device with room for so many tokens, padding included."""

    def check(rows: TokenBatch) -> None:
        if rows.tokens.numel() > tokens:
            raise error

    return check


@pytest.mark.parametrize("error", [CUDA, CPU], ids=["cuda", "cpu"])
@pytest.mark.parametrize("room", [6, 11, 23])
def test_minibatch_is_tried_again_in_smaller_parts_with_the_same_gradient(learner_of, error, room):
    batch = batch_of()
    whole, short = Model(), Model()
    expected = learner_of(whole)
    expected.step(squares(whole), batch)
    learner = learner_of(short)
    metrics = learner.step(squares(short, device_of(room, error)), batch)
    (gradient,) = learner.optimizers["model"].gradients
    # float64: the order of summation is all that differs.
    torch.testing.assert_close(
        gradient, expected.optimizers["model"].gradients[0], rtol=1e-12, atol=1e-15
    )
    assert metrics["train/skipped"] == 0
    longest_first = sorted(range(len(LENGTHS)), key=lambda i: -LENGTHS[i])
    fitting = learner.microbatches.cut(longest_first, LENGTHS)
    assert all(cost(part, LENGTHS) <= room for part in fitting)
    assert "memory ran out at 9 rows of up to 6 tokens" in learner.heard[0]


def test_half_a_backward_pass_leaves_nothing_behind(learner_of):
    """Memory runs out in the backward pass, when the last layer has its gradient already."""
    batch, whole, short = batch_of(), Model(), Model()
    expected, learner = learner_of(whole), learner_of(short)
    expected.step(squares(whole), batch)
    left = [True]

    def loss(rows: TokenBatch, denominator: float) -> LossOutput:
        inner = short.first(rows.tokens)

        def run_out(gradient: Tensor) -> Tensor:
            if left and left.pop():
                assert short.second.weight.grad is not None
                raise CUDA
            return gradient

        inner.register_hook(run_out)
        outputs = torch.where(rows.response_mask, short.second(inner.tanh()).squeeze(-1), 0)
        return LossOutput(outputs.square().sum() / denominator, {})

    learner.step(loss, batch)
    assert not left
    torch.testing.assert_close(
        learner.optimizers["model"].gradients[0],
        expected.optimizers["model"].gradients[0],
        rtol=1e-12,
        atol=1e-15,
    )


def test_smaller_budget_is_remembered_reported_once_and_saved(learner_of):
    model, batch = Model(), batch_of([4] * 8)
    learner = learner_of(model, minibatch=8)
    seen: list[int] = []

    def watch(rows: TokenBatch) -> None:
        seen.append(len(rows))
        device_of(16, CUDA)(rows)

    metrics = learner.fit(squares(model, watch), batch, learner.plan(batch, 2))
    # Tried whole once; then in two halves, in this epoch and in the next.
    assert seen == [8, 4, 4, 4, 4]
    assert len(learner.heard) == 1
    assert metrics["train/microbatch_tokens"] == learner.microbatches.tokens == 16
    other = learner_of(Model())
    other.load_state_dict(learner.state_dict())
    assert other.microbatches.tokens == 16
    assert [len(rows) for rows in learner.plan(batch)[0][0]] == [4, 4]


def test_evaluation_is_whole_when_memory_runs_out(learner_of):
    model, batch = Model(), batch_of()
    learner = learner_of(model)
    expected = learner.evaluate(
        lambda rows: {"out": model(rows.tokens)}, batch, learner.plan(batch)
    )

    def compute(rows: TokenBatch) -> dict[str, Tensor]:
        device_of(11, CUDA)(rows)
        return {"out": model(rows.tokens)}

    found = learner.evaluate(compute, batch, learner.plan(batch))
    mask = batch.attention_mask
    torch.testing.assert_close(found["out"][mask], expected["out"][mask], rtol=1e-12, atol=0)
    assert learner.microbatches.tokens <= 11


def test_single_row_that_does_not_fit_ends_training_by_its_length(learner_of):
    model = Model()
    message = r"single row of 6 tokens: .*max_length.*max_prompt_tokens and ppo.sampling.max_tokens"
    with pytest.raises(TrainingError, match=message):
        learner_of(model).step(squares(model, device_of(5, CUDA)), batch_of())


def test_other_errors_are_not_taken_for_a_lack_of_memory(learner_of):
    model = Model()
    with pytest.raises(RuntimeError, match="shapes"):
        learner_of(model).step(squares(model, device_of(5, RuntimeError("shapes"))), batch_of())


def test_ppo_round_goes_on_with_a_smaller_budget(bench, ragged_script, relative_gap):
    """Memory runs out in the policy's own forward pass, behind the real loss."""
    sound = bench(script=ragged_script, epochs=2, still=True)
    short = bench(script=ragged_script, epochs=2, still=True)

    def room(module: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        tensors = [*inputs, *keywords.values()]
        sizes = [x.numel() for x in tensors if isinstance(x, Tensor) and x.dtype == torch.long]
        if torch.is_grad_enabled() and max(sizes) > 20:
            raise CUDA

    short.policy.model.register_forward_pre_hook(room, with_kwargs=True)
    short.policy.model.base_model.register_forward_pre_hook(room, with_kwargs=True)
    sound.run()
    (step,) = short.run()
    assert step.metrics["train/microbatch_tokens"] <= 40 < 10_000
    for name in ("policy", "value"):
        for found, expected in zip(short.gradients(name), sound.gradients(name), strict=True):
            # float32: sums are in another order.
            assert relative_gap(found, expected) < 2e-6


# Reading.


@pytest.mark.parametrize("cores", [None, Cores(2)], ids=["one core", "two"])
def test_rows_that_are_read_keep_their_order_when_memory_runs_out(cores):
    heard: list[str] = []
    together: list[int] = []

    def read(rows: Sequence[int]) -> list[int]:
        if len(rows) * max(LENGTHS[row] for row in rows) > 6:
            raise CUDA
        together.append(len(rows))
        return [100 * row + LENGTHS[row] for row in rows]

    found = MicroBatches(30, heard.append).values(LENGTHS, read, cores)
    assert found == [100 * row + length for row, length in enumerate(LENGTHS)]
    assert sum(together) == len(LENGTHS) < 2 * len(together)
    assert heard


# The budget.


def test_what_a_budget_has_cut_it_cuts_no_further():
    micro = MicroBatches(12, lambda message: None)
    rows = sorted(range(9), key=lambda i: -LENGTHS[i])
    cut = list(micro.cut(rows, LENGTHS))
    assert [row for part in cut for row in part] == rows
    assert [again for part in cut for again in micro.cut(part, LENGTHS)] == cut


@pytest.mark.parametrize("count", [2, 3, 7])
def test_every_halving_makes_parts_smaller(count):
    micro = MicroBatches(10**9, lambda message: None)
    rows, lengths = list(range(count)), [5] * count

    def run_out() -> None:
        raise CUDA

    sizes = [count]
    while sizes[-1] > 1:
        with pytest.raises(BudgetHalved):
            micro.attempt(rows[: sizes[-1]], lengths, run_out)
        sizes.append(len(next(micro.cut(rows, lengths))))
    assert sizes == sorted(set(sizes), reverse=True)


def test_allocator_that_refuses_is_recognised():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 58)
    assert out_of_memory(refused.value)
    assert out_of_memory(CUDA)
    assert not out_of_memory(RuntimeError("shape mismatch"))
    assert not out_of_memory(ValueError("not enough memory"))


def cost(part: Sequence[int], lengths: Sequence[int]) -> int:
    return len(part) * max(lengths[row] for row in part)


@pytest.mark.parametrize("tokens", [6, 8, 12, 14, 20, 24])
def test_parts_are_even_in_number_and_no_other_cut_has_a_smaller_largest_part(tokens):
    rows = sorted(range(len(LENGTHS)), key=lambda i: -LENGTHS[i])
    parts = list(MicroBatches(tokens).cut(rows, LENGTHS))
    assert [row for part in parts for row in part] == rows
    assert len(parts) % 2 == 0
    largest = max(cost(part, LENGTHS) for part in parts)
    assert largest <= tokens
    for cuts in combinations(range(1, len(rows)), len(parts) - 1):
        edges = (0, *cuts, len(rows))
        other = [rows[a:b] for a, b in pairwise(edges)]
        assert max(cost(part, LENGTHS) for part in other) >= largest


def test_rows_within_the_budget_are_one_part():
    assert list(MicroBatches(1000).cut([6, 2, 0], LENGTHS)) == [[6, 2, 0]]
    assert list(MicroBatches(1000).cut([], LENGTHS)) == []
