"""Minibatches, denominators, clipping and the optimiser step: one place for all trainers.

    batch ──plan──> epochs of minibatches of micro-batches
    minibatch: for each micro-batch  loss(micro-batch, denominator).backward()
               then clip each model's gradient norm, step each optimiser, once

A loss sums over its own tokens and divides by the denominator of the whole minibatch, so
that micro-batches add up to one large batch, and so do data-parallel ranks.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from tutelage.algorithms import LossOutput
from tutelage.config import BatchConfig
from tutelage.distributed import Cores
from tutelage.models.microbatches import BudgetHalved, MicroBatches
from tutelage.trainers.finite import FiniteGuard
from tutelage.trainers.optimizer import Optimizer

__all__ = ["Batch", "Describe", "Learner", "Plan"]

_log = logging.getLogger(__name__)


class Batch(Protocol):
    """Rows that can be cut up."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    @property
    def row_lengths(self) -> Sequence[int]:
        """Tokens of each row, for the micro-batch budget."""
        ...

    @property
    def denominator(self) -> float:
        """What a mean loss over these rows divides by: tokens, or pairs."""
        ...

    def select(self, rows: Sequence[int]) -> Self:
        """The given rows."""
        ...


B = TypeVar("B", bound=Batch)
Loss = Callable[[B, float], LossOutput]
Describe = Callable[[Sequence[int]], list[dict[str, Any]]]
"""Rows of a batch, by number, as JSON for a person who looks for what is wrong with them."""


Plan = list[list[list[list[int]]]]
"""Epochs of minibatches of micro-batches of row numbers."""


@dataclass
class Learner:
    """Takes gradient steps on named models."""

    optimizers: Mapping[str, Optimizer]
    batch: BatchConfig
    generator: torch.Generator
    """Permutes the rows of each epoch."""
    guard: FiniteGuard = field(default_factory=FiniteGuard)
    """Decides about steps whose numbers are not finite."""
    notify: Callable[[str], None] = _log.warning
    """Hears when memory has run out."""
    cores: Cores = field(default_factory=Cores)
    """Work on a micro-batch each; how many they are changes no bit."""
    skipped: int = field(default=0, init=False)
    """Optimiser steps skipped so far: not finite, or without anything to learn from."""

    def __post_init__(self) -> None:
        """Begins with micro-batches of the configured size."""
        self.microbatches = MicroBatches(self.batch.microbatch_tokens, self.notify)

    def plan(self, batch: Batch, epochs: int = 1) -> Plan:
        """Cuts a batch up: each row exactly once per epoch, none dropped."""
        lengths = batch.row_lengths
        return [list(self._minibatches(lengths)) for _ in range(epochs)]

    def _minibatches(self, lengths: Sequence[int]) -> Iterator[list[list[int]]]:
        order = torch.randperm(len(lengths), generator=self.generator).tolist()
        for start in range(0, len(order), self.batch.minibatch):
            yield self._cut(order[start : start + self.batch.minibatch], lengths)

    def _cut(self, rows: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        longest_first = sorted(rows, key=lambda i: -lengths[i])
        return list(self.microbatches.cut(longest_first, lengths))

    @torch.no_grad()
    def evaluate(
        self, compute: Callable[[B], Mapping[str, Tensor]], batch: B, plan: Plan
    ) -> dict[str, Tensor]:
        """Runs `compute` over the micro-batches of the plan's first epoch.

        The same rows meet in the same shapes in the first epoch's updates, so a quantity that
        the loss recomputes there is equal bit for bit, unless memory runs out in between.
        """
        results: dict[str, Tensor] = {}
        planned = [rows for minibatch in plan[0] for rows in minibatch]
        read = self.microbatches.read_planned(
            planned, batch.row_lengths, lambda rows: compute(batch.select(rows)), self.cores
        )
        for rows, parts in read:
            for name, part in parts.items():
                shape = (len(batch), *_full_shape(batch, part))
                whole = results.setdefault(name, part.new_zeros(shape))
                if part.ndim >= 2:
                    whole[torch.tensor(rows), : part.shape[1]] = part
                else:
                    whole[torch.tensor(rows)] = part
        return results

    def fit(
        self,
        loss: Loss[B],
        batch: B,
        plan: Plan,
        *,
        train: Sequence[str] | None = None,
        stop: Callable[[Mapping[str, float]], bool] | None = None,
        observe: Callable[[Mapping[str, float]], None] | None = None,
        describe: Describe | None = None,
        count: Callable[[B], float] | None = None,
    ) -> dict[str, float]:
        """Steps through the plan and returns the metrics' means.

        Args:
            loss: of a micro-batch and the denominator of its minibatch.
            batch: what the plan's row numbers refer to.
            plan: from `plan`.
            train: names of the models to step; the others stay bit for bit as they are.
            stop: asked before each step with that minibatch's metrics; ends the updates.
            observe: shown each minibatch's metrics.
            describe: rows as JSON, to be written down when a step is not finite.
            count: what a micro-batch adds to the denominator; the batch's own, when absent.

        Raises:
            TrainingError: too many steps were not finite, or a single row does not fit memory.
        """
        history: list[dict[str, float]] = []
        for minibatch in (minibatch for epoch in plan for minibatch in epoch):
            metrics, rows = self._gradients(loss, batch, minibatch, count)
            if observe is not None:
                observe(metrics)
            history.append(metrics)
            if stop is not None and stop(metrics):
                metrics["train/stopped_early"] = 1.0
                self._zero_grad()
                break
            evidence = _Evidence(batch, rows, describe)
            metrics |= self._step(metrics, train, evidence)
        return _combine(history) | {"train/microbatch_tokens": float(self.microbatches.tokens)}

    def step(
        self, loss: Loss[B], batch: B, *, describe: Describe | None = None
    ) -> dict[str, float]:
        """One optimiser step on a batch that is a minibatch already; see `fit`."""
        minibatch = self._cut(range(len(batch)), batch.row_lengths)
        metrics, rows = self._gradients(loss, batch, minibatch)
        evidence = _Evidence(batch, rows, describe)
        return metrics | self._step(metrics, None, evidence)

    def _gradients(
        self,
        loss: Loss[B],
        batch: B,
        minibatch: list[list[int]],
        count: Callable[[B], float] | None = None,
    ) -> tuple[dict[str, float], list[int]]:
        """Leaves the gradient of a whole minibatch in the weights.

        Returns:
            The metrics, and the rows of micro-batches whose own loss is not finite, or all rows.
        """
        while True:
            try:
                return self._sum_of_parts(loss, batch, minibatch, count)
            except BudgetHalved:
                # What was added up so far, and half a backward pass.
                self._zero_grad()

    def _sum_of_parts(
        self,
        loss: Loss[B],
        batch: B,
        minibatch: list[list[int]],
        count: Callable[[B], float] | None,
    ) -> tuple[dict[str, float], list[int]]:
        lengths = batch.row_lengths
        pieces = [part for rows in minibatch for part in self.microbatches.cut(rows, lengths)]
        parts = [batch.select(rows) for rows in pieces]
        denominator = sum(part.denominator if count is None else count(part) for part in parts)

        def learn(piece: tuple[list[int], B]) -> _Learned:
            rows, part = piece
            return self.microbatches.attempt(
                rows, lengths, partial(self._learn, loss, part, denominator)
            )

        outputs: list[dict[str, Tensor]] = []
        work = list(zip(pieces, parts, strict=True))
        # No more at a time than there are cores: each holds a gradient of the whole model.
        for start in range(0, len(work), self.cores.count):
            for learned in self.cores.map(learn, work[start : start + self.cores.count]):
                self._add_gradients(learned.gradients)
                outputs.append(learned.metrics)
        odd = [not math.isfinite(float(output["loss"])) for output in outputs]
        suspects = [row for rows, is_odd in zip(pieces, odd, strict=True) if is_odd for row in rows]
        return _add_up(outputs), suspects or [row for rows in pieces for row in rows]

    def _learn(self, loss: Loss[B], part: B, denominator: float) -> "_Learned":
        """Metrics and gradients of a micro-batch; alone, it adds its gradients to the weights'."""
        output = loss(part, denominator)
        metrics = {"loss": output.loss.detach(), **output.metrics}
        if not output.loss.requires_grad:
            return _Learned(metrics, ())
        if self.cores.count == 1:
            output.loss.backward()
            return _Learned(metrics, ())
        weights = self._weights()
        return _Learned(metrics, torch.autograd.grad(output.loss, weights, allow_unused=True))

    def _add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Adds what a backward pass would have added, in the same order."""
        for weight, gradient in zip(self._weights(), gradients, strict=False):
            if gradient is None:
                continue
            if weight.grad is None:
                # A copy: two weights may have been given one tensor, and clipping scales in place.
                # In the weight's order: the fused AdamW reads a gradient as if it had no other.
                weight.grad = torch.empty_like(weight).copy_(gradient)
            else:
                weight.grad.add_(gradient)

    def _weights(self) -> list[Tensor]:
        return [weight for optimizer in self.optimizers.values() for weight in optimizer.weights]

    def _step(
        self, metrics: Mapping[str, float], train: Sequence[str] | None, evidence: "_Evidence"
    ) -> dict[str, float]:
        """Clips and steps each model, or skips all of them when a gradient is not finite.

        A model without any gradient, as of a minibatch that is masked out, is left alone.
        """
        chosen = {n: each for n, each in self.optimizers.items() if train is None or n in train}
        norms = {name: optimizer.clip() for name, optimizer in chosen.items()}
        finite = math.isfinite(metrics["loss"]) and all(map(math.isfinite, norms.values()))
        allowed = self.guard.allows_step(
            finite, lambda: evidence.of(metrics["loss"], norms, chosen)
        )
        report: dict[str, float] = {}
        for name, optimizer in chosen.items():
            report[f"{name}/gradient_norm"] = norms[name]
            report[f"{name}/learning_rate"] = optimizer.learning_rate
            if allowed and norms[name] > 0.0:
                optimizer.step()
        self._zero_grad()
        taken = allowed and any(norm > 0.0 for norm in norms.values())
        report["train/skipped"] = float(not taken)
        report["train/not_finite"] = float(not allowed)
        self.skipped += not taken
        return report

    def _zero_grad(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Optimisers, the order of rows to come, and what was learned about skips and memory.

        The models are the caller's.
        """
        return {
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "generator": self.generator.get_state(),
            "guard": self.guard.state_dict(),
            "skipped": self.skipped,
            "microbatch_tokens": self.microbatches.tokens,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.generator.set_state(state["generator"])
        self.guard.load_state_dict(state["guard"])
        self.skipped = state["skipped"]
        self.microbatches.tokens = state["microbatch_tokens"]


@dataclass(frozen=True)
class _Learned:
    """What came of a micro-batch."""

    metrics: dict[str, Tensor]
    gradients: Sequence[Tensor | None]
    """Of every weight; none where they have been added already."""


@dataclass
class _Evidence:
    """What is written down about a step that is not finite."""

    batch: Batch
    rows: Sequence[int]
    describe: Describe | None

    def of(
        self, loss: float, norms: Mapping[str, float], optimizers: Mapping[str, Optimizer]
    ) -> dict[str, Any]:
        lengths = self.batch.row_lengths
        plain = [{"row": row, "tokens": lengths[row]} for row in self.rows]
        return {
            "loss": loss,
            "gradient_norms": dict(norms),
            "weights": {name: each.not_finite() for name, each in optimizers.items()},
            "rows": self.describe(self.rows) if self.describe else plain,
        }


def _full_shape(batch: Batch, part: Tensor) -> tuple[int, ...]:
    return (max(batch.row_lengths), *part.shape[2:]) if part.ndim >= 2 else ()


def _add_up(outputs: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Metrics of micro-batches: shares of a mean add up, extremes stay extremes."""
    total: dict[str, float] = {}
    for output in outputs:
        for name, tensor in output.items():
            value = float(tensor)
            if name not in total:
                total[name] = value
            elif name.endswith("_max"):
                total[name] = max(total[name], value)
            elif name.endswith("_min"):
                total[name] = min(total[name], value)
            else:
                total[name] += value
    return total


def _combine(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of minibatches: means, and extremes of extremes."""
    names = dict.fromkeys(name for metrics in history for name in metrics)
    combined: dict[str, float] = {}
    for name in names:
        values = [metrics[name] for metrics in history if name in metrics]
        if name.endswith("_max"):
            combined[name] = max(values)
        elif name.endswith("_min"):
            combined[name] = min(values)
        else:
            combined[name] = sum(values) / len(values)
    return combined
