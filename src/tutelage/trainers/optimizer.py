"""One model's optimiser: the algorithm, its schedule and its gradient clipping.

    adamw      m, v of each weight in float32                     8 bytes a weight
    adamw8bit  the same in blocks of 256 bytes, one scale each    2 bytes a weight
    adafactor  v of a matrix as row means times column means      almost none

Loshchilov & Hutter 2019 (arXiv:1711.05101); Dettmers et al. 2022 (arXiv:2110.02861); Shazeer &
Stern 2018 (arXiv:1804.04235). All three have the same schedule, the same clipping, and a state
that goes through `tutelage.trainers.state` bit for bit.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tutelage.config import OptimizerConfig
from tutelage.errors import ConfigError, MissingExtraError
from tutelage.models import forbid_low_precision_weights

__all__ = ["Optimizer", "schedule"]


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
    """The algorithm of the configuration over one model."""

    def __init__(self, model: nn.Module, config: OptimizerConfig, total_steps: int) -> None:
        """Decays matrices only; biases and norms keep their scale.

        Args:
            model: its trainable weights must be float32.
            config: algorithm, learning rate, schedule, clipping.
            total_steps: optimiser steps over which the schedule runs.

        Raises:
            MissingExtraError: the algorithm's package is not installed.
            ConfigError: the algorithm does not run on the model's device.
            ModelError: weights that would be trained are in low precision.
        """
        forbid_low_precision_weights(model)
        self.config = config
        self.total_steps = max(1, total_steps)
        self.steps = 0
        trained = {name: w for name, w in model.named_parameters() if w.requires_grad}
        self.names, self.weights = list(trained), list(trained.values())
        matrices = [weight for weight in self.weights if weight.ndim >= 2]
        others = [weight for weight in self.weights if weight.ndim < 2]
        groups = [
            {"params": weights, "weight_decay": decay}
            for weights, decay in ((matrices, config.weight_decay), (others, 0.0))
            if weights
        ]
        self.algorithm = _algorithm(config, groups)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self.config.learning_rate * schedule(self.config, self.steps, self.total_steps)

    def clip(self) -> float:
        """Scales the gradient down to the largest allowed norm; returns the norm before.

        A gradient that is not finite stays as it is, so that one can see where it is not.
        """
        norm = nn.utils.get_total_norm([w.grad for w in self.weights if w.grad is not None])
        if norm.isfinite():
            nn.utils.clip_grads_with_norm_(self.weights, self.config.max_gradient_norm, norm)
        return float(norm)

    def not_finite(self) -> list[str]:
        """Names of the weights whose gradient is not finite."""
        pairs = zip(self.names, self.weights, strict=True)
        return [name for name, w in pairs if w.grad is not None and not w.grad.isfinite().all()]

    def step(self) -> None:
        """One step of the algorithm at the scheduled rate."""
        rate = self.learning_rate
        for group in self.algorithm.param_groups:
            group["lr"] = rate
        self.algorithm.step()
        self.steps += 1

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        self.algorithm.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The algorithm's moments of each weight, and the position in the schedule."""
        moments = self.algorithm.state_dict()["state"]
        return {
            "algorithm": self.config.algorithm,
            "moments": {str(i): dict(state) for i, state in moments.items()},
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; rates and decays stay those of the configuration.

        Raises:
            ValueError: it is the state of another algorithm.
        """
        if state["algorithm"] != self.config.algorithm:
            raise ValueError(
                f"it is the state of {state['algorithm']}, expected {self.config.algorithm}"
            )
        moments = {int(i): dict(moment) for i, moment in state["moments"].items()}
        groups = self.algorithm.state_dict()["param_groups"]
        self.algorithm.load_state_dict({"state": moments, "param_groups": groups})
        self.steps = state["steps"]


def _algorithm(config: OptimizerConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    rate = config.learning_rate
    if config.algorithm == "adafactor":
        return torch.optim.Adafactor(groups, lr=rate, weight_decay=0.0)
    moments: dict[str, Any] = {"betas": (config.beta1, config.beta2), "eps": config.epsilon}
    if config.algorithm == "adamw8bit":
        return _eight_bit(groups, lr=rate, **moments)
    return torch.optim.AdamW(groups, lr=rate, fused=True, **moments)


def _eight_bit(groups: list[dict[str, Any]], **settings: Any) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise MissingExtraError("bitsandbytes", "optimizers") from error
    devices = {weight.device.type for group in groups for weight in group["params"]}
    if not devices <= {"cpu", "cuda"}:
        raise ConfigError(
            f"adamw8bit runs on cpu and cuda, not on {', '.join(sorted(devices))}: set the "
            "optimiser's algorithm to adamw or adafactor"
        )
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, **settings)
    return optimizer
