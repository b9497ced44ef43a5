"""Means with bootstrap confidence intervals.

Efron & Tibshirani 1993, chapter 13: the percentile interval of resampled means.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Estimate", "bootstrap_difference", "bootstrap_mean"]

_RESAMPLES = 2000
_VALUES_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float]:
        """All fields."""
        return asdict(self)


def bootstrap_mean(values: ArrayLike, *, seed: int = 0) -> Estimate:
    """The mean of independent values with its percentile interval."""
    x = np.asarray(values, dtype=float)
    if len(x) == 0:
        return Estimate(0.0, 0.0, 0.0, 0)
    random = np.random.default_rng(seed)
    size = max(1, _VALUES_AT_ONCE // len(x))
    means = [
        x[random.integers(0, len(x), (min(size, _RESAMPLES - start), len(x)))].mean(1)
        for start in range(0, _RESAMPLES, size)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Estimate(float(x.mean()), float(low), float(high), len(x))


def bootstrap_difference(
    values: Sequence[float], baseline: Sequence[float], *, seed: int = 0
) -> Estimate:
    """The mean difference of paired values: the same prompts, answered by two models."""
    return bootstrap_mean(np.asarray(values, float) - np.asarray(baseline, float), seed=seed)
