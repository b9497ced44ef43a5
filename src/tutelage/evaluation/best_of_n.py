"""How far a reward model can be trusted, measured without training a policy.

Of n answers to a prompt take the one that a proxy scores best. As n grows, the proxy of that
answer rises for certain, its gold only as long as the proxy is right:

    N answers per prompt ──rank by proxy──> E[proxy], E[gold] of the best of n = 1, 2, 4 ... N
                                                 └──> gold(d) - gold(0) = d (alpha - beta d)
                                                      d = sqrt(KL), peak at alpha / (2 beta)

Gao, Schulman, Hilton 2022, "Scaling laws for reward model overoptimization", arXiv:2210.10760.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.errors import DataError

__all__ = [
    "BestOfN",
    "OveroptimisationFit",
    "best_of_n",
    "best_of_n_curve",
    "best_of_n_weights",
    "fit_overoptimisation",
    "kl_best_of_n",
]

Array = NDArray[np.float64]


def best_of_n_weights(count: int, n: int) -> Array:
    """Probability that each of `count` ranked samples is the best of n drawn without return.

    C(j-1, n-1) / C(count, n) for the sample of rank j = 1 (worst) ... count (best): the other
    n - 1 come from the j - 1 below it. Computed downwards from n / count by ratios of at most 1,
    so that no binomial coefficient overflows.

    Nakano et al. 2021, appendix I, arXiv:2112.09332.

    Args:
        count: Samples there are, N.
        n: Samples that are drawn, from 1 to N.

    Returns:
        [count] weights that add up to 1, in rising order of rank.
    """
    if not 1 <= n <= count:
        raise DataError(f"best of {n} among {count} samples: n must be from 1 to {count}")
    ranks = np.arange(count - 1, 0, -1, dtype=float)
    ratios = np.maximum(0.0, ranks - n + 1) / ranks
    falling = np.cumprod(np.concatenate([[n / count], ratios]))
    return falling[::-1]


def best_of_n(proxy: ArrayLike, values: ArrayLike, n: int) -> float:
    """Expected value of the sample that `proxy` scores best among n, without bias.

    Uses all subsets of size n at once instead of one: sum over ranks of `best_of_n_weights` times
    the value at that rank (Nakano et al. 2021, appendix I, arXiv:2112.09332). Samples with equal
    proxies are taken for one another at random.

    Args:
        proxy: [N] scores that choose.
        values: [N] what is measured of the chosen sample: its gold, or the proxy itself.
        n: from 1, the mean, to N, the value of the best.
    """
    scores, measured = _finite(proxy, "proxy"), _finite(values, "values")
    if scores.ndim != 1 or scores.shape != measured.shape:
        raise DataError(
            f"proxy has shape {scores.shape} and values {measured.shape}: expected one number "
            "per sample in both"
        )
    return float(best_of_n_weights(len(scores), n) @ _ranked(scores, measured))


def kl_best_of_n(n: int) -> float:
    """KL(best of n || one sample) in nats: log n - (n - 1) / n.

    Stiennon et al. 2020, appendix G.3, arXiv:2009.01325. Exact where no two samples have the same
    score, an upper bound otherwise (Beirami et al. 2024, arXiv:2401.01879).
    """
    if n < 1:
        raise DataError(f"best of {n}: n must be at least 1")
    return math.log(n) - (n - 1) / n


@dataclass(frozen=True)
class OveroptimisationFit:
    """gain(d) = d (alpha - beta d), with d the square root of the KL in nats."""

    alpha: float
    """Gold gained per unit of d at first."""
    beta: float
    """How fast the gain is eaten up."""
    r_squared: float
    """Share of the gains' variance that the curve explains."""

    @property
    def peak(self) -> float:
        """d* = alpha / (2 beta), beyond which gold falls.

        0 where gold falls from the start, infinite where it rises and never falls.
        """
        if self.alpha <= 0.0:
            return 0.0
        return self.alpha / (2 * self.beta) if self.beta > 0.0 else math.inf


def fit_overoptimisation(distance: ArrayLike, gain: ArrayLike) -> OveroptimisationFit:
    """Least-squares alpha and beta of gain(d) = d (alpha - beta d).

    Gao et al. 2022, equation 1 for best-of-n, arXiv:2210.10760.

    Args:
        distance: [points] d = sqrt(KL) > 0. The start, d = 0 with gain 0, lies on every such
            curve and would flatter the fit: leave it out.
        gain: [points] gold minus the gold at d = 0.
    """
    d, gains = _finite(distance, "distance"), _finite(gain, "gain")
    if d.shape != gains.shape or (d <= 0).any() or len(np.unique(d)) < 3:
        raise DataError(
            f"distances {d.tolist()} for {gains.size} gains: expected as many of both, positive, "
            "and at least 3 different ones for a curve of 2 parameters"
        )
    columns = np.stack([d, -d * d], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(columns, gains, rcond=None)
    residual = gains - columns @ [alpha, beta]
    spread = gains - gains.mean()
    variance = float(spread @ spread)
    r_squared = 1.0 - float(residual @ residual) / variance if variance > 0.0 else 0.0
    return OveroptimisationFit(float(alpha), float(beta), r_squared)


@dataclass(frozen=True)
class BestOfN:
    """Means over prompts, for each n."""

    sizes: tuple[int, ...]
    proxy: tuple[float, ...]
    """Proxy of the best of n by proxy: rises with n."""
    gold: tuple[float, ...]
    """Gold of the same answers."""

    @property
    def distances(self) -> tuple[float, ...]:
        """d = sqrt(KL) of each n."""
        return tuple(math.sqrt(kl_best_of_n(n)) for n in self.sizes)

    def fit(self) -> OveroptimisationFit:
        """Fits the gold gained over n = 1, which `sizes` must begin with."""
        if self.sizes[0] != 1:
            raise DataError(f"sizes begin with {self.sizes[0]}, gains are counted from n = 1")
        gains = [gold - self.gold[0] for gold in self.gold[1:]]
        return fit_overoptimisation(self.distances[1:], gains)


def best_of_n_curve(proxy: ArrayLike, gold: ArrayLike, sizes: Sequence[int]) -> BestOfN:
    """Proxy and gold of the best of n by proxy, mean over prompts.

    Args:
        proxy: [prompts, N] scores of N answers to each prompt.
        gold: [prompts, N] what the answers are truly worth.
        sizes: values of n, each from 1 to N.
    """
    scores, worth = _finite(proxy, "proxy"), _finite(gold, "gold")
    if scores.ndim != 2 or scores.shape != worth.shape or not scores.size:
        raise DataError(
            f"proxy has shape {scores.shape} and gold {worth.shape}: expected [prompts, samples] "
            "of both"
        )
    ranked = {
        "proxy": np.sort(scores, axis=1).mean(0),
        "gold": np.stack([_ranked(s, g) for s, g in zip(scores, worth, strict=True)]).mean(0),
    }
    weights = [best_of_n_weights(scores.shape[1], n) for n in sizes]
    return BestOfN(
        tuple(sizes),
        tuple(float(row @ ranked["proxy"]) for row in weights),
        tuple(float(row @ ranked["gold"]) for row in weights),
    )


def _finite(values: ArrayLike, name: str) -> Array:
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds numbers that are not finite: leave those samples out")
    return array


def _ranked(scores: Array, values: Array) -> Array:
    """Values in rising order of score; equal scores share the mean of their values."""
    _, group = np.unique(scores, return_inverse=True)
    means = np.bincount(group, values) / np.bincount(group)
    return means[np.sort(group)]
