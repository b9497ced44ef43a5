"""Cohen's kappa of two judges of pairs, with an interval.

    kappa = (p_o - p_e) / (1 - p_e)

with p_o the share of equal verdicts (a, b or tie) and p_e the share expected by chance (Cohen
1960, doi:10.1177/001316446002000104). Which answer is called a says nothing, and in many files it
is always the better one: each pair counts in both orders, so that with tie shares t_1 and t_2

    p_e = (1 - t_1)(1 - t_2) / 2 + t_1 t_2

and without ties kappa = 2 p_o - 1.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.intervals import Estimate

__all__ = ["kappa"]

Numbers = NDArray[np.float64]

_RESAMPLES = 2000


def kappa(
    first: Numbers, second: Numbers, prompts: Sequence[Hashable], *, seed: int = 0
) -> Estimate:
    """Agreement of verdicts above 1/2, below it, and at it (a tie); prompts are resampled.

    Where both only ever say tie, chance explains everything and kappa is 0.

    Args:
        first: P(a is better) of each pair, by one.
        second: by the other.
        prompts: of each pair; those of one prompt are drawn together.
        seed: of the bootstrap.
    """
    one, other = np.sign(np.round(first - 0.5, 9)), np.sign(np.round(second - 0.5, 9))
    if len(one) == 0:
        return Estimate(0.0, 0.0, 0.0, 0)
    index = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    which = np.array([index[prompt] for prompt in prompts])
    columns = (np.ones(len(one)), one == other, one == 0, other == 0)
    sums = np.stack([np.bincount(which, weights=np.asarray(c, float)) for c in columns])
    random = np.random.default_rng(seed)
    drawn = np.array(
        [
            _kappa(sums[:, random.integers(0, len(index), len(index))].sum(1))
            for _ in range(_RESAMPLES)
        ]
    )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(_kappa(sums.sum(1)), float(low), float(high), len(one))


def _kappa(sums: Numbers) -> float:
    """Of the sums of ones, agreements, and either side's ties."""
    observed, tied, other_tied = sums[1:] / sums[0]
    expected = (1.0 - tied) * (1.0 - other_tied) / 2 + tied * other_tied
    return float((observed - expected) / (1.0 - expected)) if expected < 1.0 else 0.0
