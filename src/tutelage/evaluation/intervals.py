"""Means with bootstrap confidence intervals.

Efron & Tibshirani 1993, chapter 13: the percentile interval of resampled means.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Estimate", "bootstrap_difference", "bootstrap_mean", "clustered_mean"]

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


def clustered_mean(values: ArrayLike, clusters: Sequence[Hashable], *, seed: int = 0) -> Estimate:
    """The mean of values that depend on each other within a cluster, such as pairs of one prompt.

    Whole clusters are resampled (Efron & Tibshirani 1993, section 8.3), so that twenty pairs of
    one prompt do not pass for twenty independent ones. Where each has its own it is
    `bootstrap_mean`.
    """
    x = np.asarray(values, dtype=float)
    index = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    if len(index) == len(x):
        return bootstrap_mean(x, seed=seed)
    which = np.array([index[cluster] for cluster in clusters])
    sums, counts = np.bincount(which, weights=x), np.bincount(which).astype(float)
    random = np.random.default_rng(seed)
    size = max(1, _VALUES_AT_ONCE // len(index))
    means = []
    for start in range(0, _RESAMPLES, size):
        drawn = random.integers(0, len(index), (min(size, _RESAMPLES - start), len(index)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Estimate(float(x.mean()), float(low), float(high), len(x))


def bootstrap_difference(
    values: Sequence[float], baseline: Sequence[float], *, seed: int = 0
) -> Estimate:
    """The mean difference of paired values: the same prompts, answered by two models."""
    return bootstrap_mean(np.asarray(values, float) - np.asarray(baseline, float), seed=seed)
