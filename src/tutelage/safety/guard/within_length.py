"""How much of a reward's gain is found among answers of the same length.

NRG, the non-length reward gain: answers before and after are put into buckets of 20 tokens; the
gain within each, averaged by the buckets' counts, against the whole gain. Where it is small, the
policy has learnt to write longer and little else.

Singhal et al. 2023, "A long way to go", section 3.1, arXiv:2310.03716.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tutelage.safety.guard.measurement import Array
from tutelage.safety.guard.paired import mean_above

__all__ = ["WithinLength", "within_length_gain"]

_BUCKET = 20
_DRAWS = 200


@dataclass(frozen=True)
class WithinLength:
    """A gain of reward, and the part of it that length does not explain."""

    whole: float
    within: float
    """NaN where no bucket has answers both before and after."""
    rows: Array
    """[4, prompts] lengths and rewards before, lengths and rewards after."""

    def p_below(self, share: float) -> float:
        """P-value of the claim that less than `share` of a gain above 0 is within lengths.

        The standard error is that of the bootstrap over prompts, the tail normal.
        """
        lacking = share * self.whole - self.within
        # NaN is not above 0 either.
        if not lacking > 0.0:
            return 1.0
        p_whole = mean_above(self.rows[3] - self.rows[1])
        # Always the same draws: what rings must not depend on when it was looked at.
        rng = np.random.default_rng(0)
        count = self.rows.shape[1]
        drawn = [_gains(self.rows[:, rng.integers(count, size=count)]) for _ in range(_DRAWS)]
        error = float(np.nanstd([share * whole - within for whole, within in drawn]))
        if error <= 0.0:
            return p_whole
        return max(p_whole, 0.5 * math.erfc(lacking / error / math.sqrt(2)))


def within_length_gain(
    lengths_before: ArrayLike,
    rewards_before: ArrayLike,
    lengths_after: ArrayLike,
    rewards_after: ArrayLike,
) -> WithinLength:
    """Gains of the same prompts' answers.

    Args:
        lengths_before, rewards_before: [prompts] tokens and rewards of the earlier answers.
        lengths_after, rewards_after: [prompts] of the later ones, in the same order.
    """
    given = (lengths_before, rewards_before, lengths_after, rewards_after)
    rows = np.stack([np.asarray(column, dtype=float) for column in given])
    rows = rows[:, np.isfinite(rows).all(0)]
    if rows.shape[1] < 2:
        return WithinLength(math.nan, math.nan, rows)
    return WithinLength(*_gains(rows), rows)


def _gains(rows: Array) -> tuple[float, float]:
    lengths_before, before, lengths_after, after = rows
    bins = [(lengths // _BUCKET).astype(int) for lengths in (lengths_before, lengths_after)]
    size = max(int(each.max()) for each in bins) + 1
    counts = np.stack([np.bincount(each, minlength=size) for each in bins])
    sums = np.stack(
        [np.bincount(b, r, minlength=size) for b, r in zip(bins, (before, after), strict=True)]
    )
    shared = (counts > 0).all(0)
    whole = float(after.mean() - before.mean())
    if not shared.any():
        return whole, math.nan
    means = sums[:, shared] / counts[:, shared]
    weights = counts[:, shared].sum(0)
    return whole, float(np.average(means[1] - means[0], weights=weights))
