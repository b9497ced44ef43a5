"""A judge: it prefers, and does not score.

Comparison(prompt, a, b) ──judge──> probability that `a` is better, or None: it cannot tell
"""

import math
from collections.abc import Callable, Sequence

from tutelage.errors import RewardError
from tutelage.records import Comparison

__all__ = ["Judge", "asked_in_both_orders", "in_both_orders"]

Judge = Callable[[Sequence[Comparison]], Sequence[float | None]]
"""The probability that `a` is the better answer of each; None where it cannot tell."""


def in_both_orders(judge: Judge, comparisons: Sequence[Comparison]) -> list[float | None]:
    """Asks about each comparison and about its swap, so that a taste for a position drops out.

        p = (p(a, b) + 1 - p(b, a)) / 2

    Source: Zheng et al. 2023 (arXiv:2306.05685), section 3.4; the mean instead of a tie, as in
    Lee et al. 2023 (arXiv:2309.00267), section 2.1. Departure: what the judge cannot tell in one of
    the orders, it cannot tell.

    Args:
        judge: a function of comparisons.
        comparisons: what to ask about.

    Returns:
        For each comparison p, or None.

    Raises:
        RewardError: the judge returned what is no probability, or not one for each comparison.
    """
    return [
        None if first is None or second is None else (first + second) / 2
        for first, second in asked_in_both_orders(judge, comparisons)
    ]


def asked_in_both_orders(
    judge: Judge, comparisons: Sequence[Comparison]
) -> list[tuple[float | None, float | None]]:
    """P(a is better) of each comparison, where a was shown first and where it was shown second.

    Raises:
        RewardError: as `in_both_orders`.
    """
    forth = _asked(judge, comparisons)
    back = _asked(judge, [comparison.swap() for comparison in comparisons])
    return [
        (first, None if swapped is None else 1.0 - swapped)
        for first, swapped in zip(forth, back, strict=True)
    ]


def _asked(judge: Judge, comparisons: Sequence[Comparison]) -> list[float | None]:
    answers = list(judge(comparisons))
    if len(answers) != len(comparisons):
        raise RewardError(
            f"the judge gave {len(answers)} answers to {len(comparisons)} comparisons: expected "
            "one for each, None where it cannot tell"
        )
    for answer in answers:
        if answer is not None and not (math.isfinite(answer) and 0.0 <= answer <= 1.0):
            raise RewardError(
                f"the judge returned {answer!r}: expected the probability that `a` is better, "
                "or None"
            )
    return answers
