"""Medians, spreads, ratios with intervals, and when a run does not count.

Few repeats, unknown distribution: intervals are made of order statistics, which hold for any
distribution (David and Nagaraja 2003, Order Statistics, section 7.1).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

__all__ = ["MAX_SPREAD", "Ratio", "median_interval", "noisy_sides", "ratio", "spread"]

MAX_SPREAD = 0.10
"""A side whose quartiles differ by more than this says the machine was not quiet."""


@dataclass(frozen=True)
class Ratio:
    """How many times smaller ours is: above 1 we win."""

    value: float
    low: float
    high: float
    confidence: float
    """Probability with which [low, high] covers the true median ratio."""


def spread(values: Sequence[float]) -> float:
    """Interquartile range over median: how far a side differs from itself.

    One turn in six that the host disturbs moves no quartile; the interval of a ratio, which goes
    from the smallest to the largest, still shows it.
    """
    middle = median(values)
    if not middle:
        return math.inf
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / middle


def median_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Narrowest symmetric pair of order statistics that covers the median that surely.

    P(x_(k) < m < x_(n+1-k)) = 1 - 2 P(Binomial(n, 1/2) < k)

    Returns low, high and the actual confidence: the largest possible one where even smallest
    and largest do not reach the wanted one (5 values: 0.9375).
    """
    ordered = sorted(values)
    n = len(ordered)
    below = 0.0
    chosen, reached = 1, 1.0 - 2.0 * 0.5**n
    for k in range(1, n // 2 + 1):
        below += math.comb(n, k - 1) * 0.5**n
        if 1.0 - 2.0 * below >= confidence:
            chosen, reached = k, 1.0 - 2.0 * below
    return ordered[chosen - 1], ordered[n - chosen], max(0.0, reached)


def ratio(ours: Sequence[float], peer: Sequence[float]) -> Ratio:
    """Peer over ours, round by round: what both had to suffer in a round cancels."""
    quotients = [b / a for a, b in zip(ours, peer, strict=True)]
    low, high, confidence = median_interval(quotients)
    return Ratio(median(quotients), low, high, confidence)


def noisy_sides(
    measured: Mapping[str, Mapping[str, Sequence[float]]], limit: float = MAX_SPREAD
) -> dict[str, str]:
    """The sides that nothing can be compared with, and why.

    Args:
        measured: side -> quantity -> one value per repeat.
        limit: largest allowed spread of any of its quantities.
    """
    found = {}
    for side, quantities in measured.items():
        spreads = {quantity: spread(values) for quantity, values in quantities.items()}
        worst = max(spreads, key=lambda quantity: spreads[quantity], default=None)
        if worst is not None and spreads[worst] > limit:
            found[side] = (
                f"{side} differs from itself by {spreads[worst]:.0%} in {worst}, at most "
                f"{limit:.0%} is allowed: the machine was not quiet"
            )
    return found
