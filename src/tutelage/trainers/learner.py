"""Minibatches, denominators, clipping and the optimiser step: one place for all trainers.

    batch ──plan──> epochs of minibatches of micro-batches
    minibatch: for each micro-batch  loss(micro-batch, denominator).backward()
               then clip each model's gradient norm, step each optimiser, once

A loss sums over its own tokens and divides by the denominator of the whole minibatch, so
that micro-batches add up to one large batch, and so do data-parallel ranks.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from tutelage.algorithms import LossOutput
from tutelage.config import BatchConfig, OptimizerConfig
from tutelage.errors import TrainingError
from tutelage.models import forbid_low_precision_weights

__all__ = ["Batch", "Learner", "Optimizer", "Plan", "schedule"]


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


def schedule(config: OptimizerConfig, step: int, total: int) -> float:
    """Learning rate as a share of its peak before optimiser step `step` of `total`."""
    warmup = config.warmup * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
    if config.schedule == "linear":
        return 1.0 - (1.0 - config.floor) * progress
    return config.floor + (1.0 - config.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


class Optimizer:
    """AdamW over one model, with its schedule and its gradient clipping."""

    def __init__(self, model: nn.Module, config: OptimizerConfig, total_steps: int) -> None:
        """Decays matrices only; biases and norms keep their scale.

        Args:
            model: its trainable weights must be float32.
            config: learning rate, schedule, clipping.
            total_steps: optimiser steps over which the schedule runs.
        """
        forbid_low_precision_weights(model)
        self.config = config
        self.total_steps = max(1, total_steps)
        self.steps = 0
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        groups = [
            {"params": [w for w in self.weights if w.ndim >= 2], "decay": config.weight_decay},
            {"params": [w for w in self.weights if w.ndim < 2], "decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(
            [{"params": g["params"], "weight_decay": g["decay"]} for g in groups if g["params"]],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.epsilon,
            fused=True,
        )

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self.config.learning_rate * schedule(self.config, self.steps, self.total_steps)

    def clip(self) -> float:
        """Scales the gradient down to the largest allowed norm; returns the norm before."""
        return float(nn.utils.clip_grad_norm_(self.weights, self.config.max_gradient_norm))

    def step(self) -> None:
        """One AdamW step at the scheduled rate."""
        rate = self.learning_rate
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        self.steps += 1

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        self.adamw.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """AdamW's moments of each weight, and the position in the schedule."""
        moments = self.adamw.state_dict()["state"]
        return {
            "moments": {str(i): dict(state) for i, state in moments.items()},
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; rates and decays stay those of the configuration."""
        moments = {int(i): dict(moment) for i, moment in state["moments"].items()}
        groups = self.adamw.state_dict()["param_groups"]
        self.adamw.load_state_dict({"state": moments, "param_groups": groups})
        self.steps = state["steps"]


Plan = list[list[list[list[int]]]]
"""Epochs of minibatches of micro-batches of row numbers."""


@dataclass
class Learner:
    """Takes gradient steps on named models."""

    optimizers: Mapping[str, Optimizer]
    batch: BatchConfig
    generator: torch.Generator
    """Permutes the rows of each epoch."""
    max_skipped: int = 3
    """Non-finite steps in a row after which training is given up."""
    skipped: int = field(default=0, init=False)
    """Optimiser steps skipped so far: not finite, or without anything to learn from."""
    _skipped_in_a_row: int = field(default=0, init=False)

    def plan(self, batch: Batch, epochs: int = 1) -> Plan:
        """Cuts a batch up: each row exactly once per epoch, none dropped."""
        lengths = batch.row_lengths
        return [list(self._minibatches(lengths)) for _ in range(epochs)]

    def _minibatches(self, lengths: Sequence[int]) -> Iterator[list[list[int]]]:
        order = torch.randperm(len(lengths), generator=self.generator).tolist()
        for start in range(0, len(order), self.batch.minibatch):
            rows = order[start : start + self.batch.minibatch]
            yield list(self._microbatches(sorted(rows, key=lambda i: -lengths[i]), lengths))

    def _microbatches(self, rows: list[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows of like length together, so that little of the token budget is padding."""
        while rows:
            size = max(1, self.batch.microbatch_tokens // max(1, lengths[rows[0]]))
            yield rows[:size]
            rows = rows[size:]

    @torch.no_grad()
    def evaluate(
        self, compute: Callable[[B], Mapping[str, Tensor]], batch: B, plan: Plan
    ) -> dict[str, Tensor]:
        """Runs `compute` over the micro-batches of the plan's first epoch.

        The same rows meet in the same shapes in the first epoch's updates, so a quantity that
        the loss recomputes there is equal bit for bit.
        """
        results: dict[str, Tensor] = {}
        for rows in (rows for minibatch in plan[0] for rows in minibatch):
            for name, part in compute(batch.select(rows)).items():
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
    ) -> dict[str, float]:
        """Steps through the plan and returns the metrics' means.

        Args:
            loss: of a micro-batch and the denominator of its minibatch.
            batch: what the plan's row numbers refer to.
            plan: from `plan`.
            train: names of the models to step; the others stay bit for bit as they are.
            stop: asked before each step with that minibatch's metrics; ends the updates.
            observe: shown each minibatch's metrics.
        """
        history: list[dict[str, float]] = []
        for minibatch in (minibatch for epoch in plan for minibatch in epoch):
            metrics = self._gradients(loss, batch, minibatch)
            if observe is not None:
                observe(metrics)
            history.append(metrics)
            if stop is not None and stop(metrics):
                metrics["train/stopped_early"] = 1.0
                self._zero_grad()
                break
            metrics |= self._step(metrics, train)
        return _combine(history)

    def step(self, loss: Loss[B], batch: B) -> dict[str, float]:
        """One optimiser step on a batch that is a minibatch already."""
        rows = sorted(range(len(batch)), key=lambda i: -batch.row_lengths[i])
        metrics = self._gradients(loss, batch, list(self._microbatches(rows, batch.row_lengths)))
        return metrics | self._step(metrics, None)

    def _gradients(self, loss: Loss[B], batch: B, minibatch: list[list[int]]) -> dict[str, float]:
        """Adds up the gradients of a minibatch's micro-batches."""
        parts = [batch.select(rows) for rows in minibatch]
        denominator = sum(part.denominator for part in parts)
        outputs: list[Mapping[str, Tensor]] = []
        for part in parts:
            output = loss(part, denominator)
            if output.loss.requires_grad:
                output.loss.backward()
            outputs.append({"loss": output.loss.detach(), **output.metrics})
        return _add_up(outputs)

    def _step(self, metrics: Mapping[str, float], train: Sequence[str] | None) -> dict[str, float]:
        """Clips and steps each model, or skips all of them when a gradient is not finite.

        A model without any gradient, as of a minibatch that is masked out, is left alone.
        """
        chosen = [name for name in self.optimizers if train is None or name in train]
        norms = {name: self.optimizers[name].clip() for name in chosen}
        finite = math.isfinite(metrics["loss"]) and all(map(math.isfinite, norms.values()))
        report: dict[str, float] = {}
        for name in chosen:
            report[f"{name}/gradient_norm"] = norms[name]
            report[f"{name}/learning_rate"] = self.optimizers[name].learning_rate
            if finite and norms[name] > 0.0:
                self.optimizers[name].step()
        self._zero_grad()
        taken = finite and any(norm > 0.0 for norm in norms.values())
        report["train/skipped"] = float(not taken)
        self.skipped += not taken
        self._give_up_when_stuck(finite, metrics["loss"], norms)
        return report

    def _give_up_when_stuck(self, finite: bool, loss: float, norms: Mapping[str, float]) -> None:
        self._skipped_in_a_row = 0 if finite else self._skipped_in_a_row + 1
        if self._skipped_in_a_row >= self.max_skipped:
            raise TrainingError(
                f"{self._skipped_in_a_row} optimiser steps in a row were not finite: loss {loss}, "
                f"gradient norms {norms}. Expected finite numbers; lower the learning rate, or "
                "look for extreme rewards"
            )

    def _zero_grad(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Optimisers, the order of rows to come, and skipped steps; the models are the caller's."""
        return {
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "generator": self.generator.get_state(),
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.generator.set_state(state["generator"])
        self.skipped = state["skipped"]
        self._skipped_in_a_row = state["skipped_in_a_row"]


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
