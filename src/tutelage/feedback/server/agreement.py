"""How far people agree beyond chance: Krippendorff's alpha and Cohen's kappa.

Krippendorff 2011, Computing Krippendorff's Alpha-Reliability; Cohen 1960,
doi:10.1177/001316446002000104. Both are 1 for full agreement and 0 for what chance gives.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Literal

__all__ = ["cohen_kappa", "krippendorff_alpha", "mean_kappa"]

Ratings = Mapping[str, float]
"""Annotator -> value, of one item."""


def krippendorff_alpha(
    items: Iterable[Ratings], metric: Literal["nominal", "ordinal"] = "nominal"
) -> float:
    """Agreement of any number of people, of whom each rates any of the items.

        alpha = 1 - D_o / D_e
        D_o = 1/n sum_ck o_ck d²_ck,   D_e = 1/(n (n - 1)) sum_ck n_c n_k d²_ck

    with o_ck the pairs of values c and k within items, those of an item with m values divided by
    m - 1; n_c how often c occurs among them and n their number. Nominal: d² is 1 for different
    values. Ordinal: d_ck = sum_{c <= g <= k} n_g - (n_c + n_k) / 2.

    Returns:
        NaN where no item has two values, or all values are the same.
    """
    coincidences: defaultdict[tuple[float, float], float] = defaultdict(float)
    for item in items:
        values = Counter(item.values())
        others = values.total() - 1
        if others < 1:
            continue
        for c, times in values.items():
            for k, again in values.items():
                number = times * (again - 1) if c == k else times * again
                coincidences[c, k] += number / others
    counts: defaultdict[float, float] = defaultdict(float)
    for (c, _), pairs in coincidences.items():
        counts[c] += pairs
    total = math.fsum(counts.values())
    squared = _ordinal(counts) if metric == "ordinal" else _nominal
    expected = math.fsum(
        counts[c] * counts[k] * squared(c, k) for c in counts for k in counts if c != k
    )
    if not expected:
        return math.nan
    observed = math.fsum(pairs * squared(c, k) for (c, k), pairs in coincidences.items())
    return 1.0 - (total - 1.0) * observed / expected


def _nominal(c: float, k: float) -> float:
    return float(c != k)


def _ordinal(counts: Mapping[float, float]) -> Callable[[float, float], float]:
    def squared(c: float, k: float) -> float:
        low, high = min(c, k), max(c, k)
        between = math.fsum(count for value, count in counts.items() if low <= value <= high)
        return (between - (counts[c] + counts[k]) / 2) ** 2

    return squared


def cohen_kappa(pairs: Sequence[tuple[float, float]]) -> float:
    """Agreement of two people on the items that both have rated.

        kappa = (p_o - p_e) / (1 - p_e)

    with p_o the share of equal values and p_e the share expected if each gave values at random in
    the proportions found.

    Returns:
        NaN without pairs, or where each always gives one and the same value.
    """
    if not pairs:
        return math.nan
    total = len(pairs)
    observed = sum(one == other for one, other in pairs) / total
    left, right = (Counter(side) for side in zip(*pairs, strict=True))
    expected = sum(left[value] * right[value] for value in left) / total**2
    return (observed - expected) / (1.0 - expected) if expected < 1.0 else math.nan


def mean_kappa(items: Iterable[Ratings]) -> float:
    """Cohen's kappa of each two people, weighted by how many items they share (Light 1971)."""
    shared: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for item in items:
        for one, other in combinations(sorted(item), 2):
            shared.setdefault((one, other), []).append((item[one], item[other]))
    found = [(cohen_kappa(pairs), len(pairs)) for pairs in shared.values()]
    known = [(kappa, weight) for kappa, weight in found if not math.isnan(kappa)]
    if not known:
        return math.nan
    return fmean((kappa for kappa, _ in known), weights=[weight for _, weight in known])
