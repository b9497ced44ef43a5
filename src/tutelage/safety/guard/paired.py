"""One-sided paired t-tests: has a number changed by more than is allowed, over the same prompts?

    H0: E[x] <= limit       t = (mean(x) - limit) / (std(x) / sqrt(n)),   p = P(T_{n-1} >= t)

x is a difference within each prompt, so what makes prompts differ from each other drops out.
The tail of Student's distribution is half the regularised incomplete beta function
I_{df / (df + t^2)}(df / 2, 1 / 2); see Press et al., Numerical Recipes, section 6.4.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["mean_above", "student_tail"]

_FEWEST = 8
"""Pairs below which nothing is tested."""
_TINY = 1e-300
_TERMS = 500


def mean_above(values: ArrayLike, limit: float = 0.0) -> float:
    """P-value of the claim that the values' mean is above `limit`.

    Values that are not finite are left out. With fewer than eight left there is no evidence, and
    the p-value is 1.
    """
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    if len(x) < _FEWEST:
        return 1.0
    gap = float(x.mean()) - limit
    error = float(x.std(ddof=1)) / math.sqrt(len(x))
    if error <= 1e-12 * max(1.0, abs(float(x.mean()))):
        # Every prompt moved by the same: what there is of a gap is no accident.
        return 0.0 if gap > 1e-9 else 1.0
    return student_tail(gap / error, len(x) - 1)


def student_tail(t: float, df: int) -> float:
    """P(T >= t) of Student's distribution with `df` degrees of freedom."""
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    half = 0.5 * _incomplete_beta(df / 2, 0.5, df / (df + t * t))
    return half if t >= 0 else 1.0 - half


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised I_x(a, b)."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log_front + a * math.log(x) + b * math.log1p(-x))
    # The fraction converges quickly on this side; the other follows from the symmetry.
    if x < (a + 1) / (a + b + 2):
        return front * _continued_fraction(a, b, x) / a
    return 1.0 - front * _continued_fraction(b, a, 1.0 - x) / b


def _continued_fraction(a: float, b: float, x: float) -> float:
    """By Lentz's method; numerators alternate between two forms."""
    c, d = 1.0, 1.0 / _nonzero(1.0 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d = 1.0 / _nonzero(1.0 + numerator * d)
            c = _nonzero(1.0 + numerator / c)
            found *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return found


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
