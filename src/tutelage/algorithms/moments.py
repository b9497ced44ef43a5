"""Putting scores on a known scale: running moments, and a fixed affine map.

Order: score, then normalise, then clip. Statistics are kept in fp64, over all ranks, and belong in
every checkpoint.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tutelage.algorithms.masked import AllSum, identity

__all__ = ["Affine", "RunningMoments", "fit_affine"]


class RunningMoments:
    """Mean and variance of everything seen so far, without storing it.

        n' = n + m,   μ' = μ + (ν - μ) m / n',   S' = S + S_batch + (ν - μ)² n m / n'

    Source: Welford 1962, in the pairwise form of Chan, Golub & LeVeque 1983: batches of
    any size, split over ranks in any way, give the moments of their concatenation.
    """

    def __init__(self) -> None:
        """Starts with nothing seen: mean 0, variance 0."""
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def update(
        self,
        x: Float[Tensor, "*shape"],
        mask: Bool[Tensor, "*shape"] | None = None,
        *,
        all_sum: AllSum = identity,
    ) -> None:
        """Takes a batch in; where `mask` is false, nothing is read.

        Raises:
            ValueError: a value that counts is not finite; nothing is changed.
        """
        kept = (x if mask is None else x[mask.bool()]).detach().double()
        totals = all_sum(torch.stack([kept.sum(), kept.new_tensor(kept.numel())]))
        total, count = float(totals[0]), int(totals[1])
        if not math.isfinite(total):
            raise ValueError("a score that counts is not finite: mask it out, it is not a zero")
        if count == 0:
            return
        mean = total / count
        squares = float(all_sum((kept - mean).square().sum()))
        delta, n = mean - self.mean, self.count + count
        self.mean += delta * count / n
        self._squares += squares + delta**2 * self.count * count / n
        self.count = n

    @property
    def variance(self) -> float:
        """Population variance; 0 before anything was seen."""
        return self._squares / self.count if self.count else 0.0

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self.variance)

    def scale(self, x: Float[Tensor, "*shape"], *, clip: float | None = None) -> Tensor:
        """Divides by the running standard deviation, without moving the mean, then clips.

            y = clip(x / σ, -c, c)

        The mean stays because in a reward it matters which completions are worth more than nothing.
        While nothing varies, σ is read as 1.
        """
        scaled = x / (self.std or 1.0)
        return scaled if clip is None else scaled.clamp(-clip, clip)

    def state_dict(self) -> dict[str, float]:
        """Count, mean and sum of squared deviations."""
        return {"count": self.count, "mean": self.mean, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Inverse of `state_dict`."""
        self.count = int(state["count"])
        self.mean = state["mean"]
        self._squares = state["squares"]


class Affine(NamedTuple):
    """A change of scale, `gain · x + bias`."""

    gain: float
    bias: float

    def __call__(self, x: Tensor) -> Tensor:
        """Applies it."""
        return self.gain * x + self.bias


def fit_affine(samples: Float[Tensor, "*shape"], *, mean: float = 0.0, std: float = 1.0) -> Affine:
    """The map that gives these samples the wanted mean and standard deviation.

        gain = σ_target / σ_samples,   bias = μ_target - gain · μ_samples

    Source: Ziegler et al. 2019 (arXiv:1909.08593), section 2.2: the reward model is
    normalised once, on samples of the reference policy.

    Raises:
        ValueError: the samples do not vary, or are not finite.
    """
    moments = RunningMoments()
    moments.update(samples)
    if moments.std == 0:
        raise ValueError(
            f"{moments.count} samples without variance cannot be scaled to std {std:g}: "
            "the reward gives all of them the same score"
        )
    gain = std / moments.std
    return Affine(gain, mean - gain * moments.mean)
