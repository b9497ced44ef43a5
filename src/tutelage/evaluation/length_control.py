"""How much of a reward model's accuracy is length.

Annotators and judges prefer long answers, so a model that counts characters looks good on their
labels and is gamed first (Singhal et al. 2023, arXiv:2310.03716). Three views that length cannot
flatter:

    similar    pairs whose answers are nearly as long as each other
    adjusted   margins with what the length difference explains taken out
    balanced   mean of the accuracies where the longer and where the shorter answer is better
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.intervals import Estimate, clustered_mean
from tutelage.evaluation.scored_pairs import ScoredPairs, right_answers

__all__ = ["LengthControl", "length_control"]

_SIMILAR = 0.1
"""Difference of two lengths, as a share of the longer, up to which they are nearly the same."""


@dataclass(frozen=True)
class LengthControl:
    """Accuracies under control of length, and how the margins lean."""

    correlation: float
    """Of the margin with the difference of the lengths."""
    similar: Estimate
    """On pairs of nearly equal length; n is 0 where there are none."""
    adjusted: Estimate
    longer_is_better: Estimate
    shorter_is_better: Estimate

    @property
    def balanced(self) -> float | None:
        """Accuracy if the better answer were as often the longer as the shorter one."""
        both = (self.longer_is_better, self.shorter_is_better)
        return sum(one.mean for one in both) / 2 if all(one.n for one in both) else None

    def to_json(self) -> dict[str, Any]:
        """All views; None where there is nothing to measure."""
        views = ("similar", "adjusted", "longer_is_better", "shorter_is_better")
        row: dict[str, Any] = {"correlation": self.correlation, "balanced": self.balanced}
        for view in views:
            estimate: Estimate = getattr(self, view)
            row[view] = estimate.to_json() if estimate.n else None
        return row


def length_control(pairs: ScoredPairs, *, seed: int = 0) -> LengthControl:
    """Measures all views; ties of the annotators count in `similar` and `adjusted` alone."""
    lengths, labels, margins = pairs.lengths, pairs.labels, pairs.margins
    difference = lengths[:, 0] - lengths[:, 1]
    similar = np.abs(difference) <= _SIMILAR * lengths.max(1)
    lean = np.sign(difference) * np.sign(labels - 0.5)

    def accuracy(right: NDArray[np.float64], chosen: NDArray[np.bool_]) -> Estimate:
        prompts = [prompt for prompt, kept in zip(pairs.prompts, chosen, strict=True) if kept]
        return clustered_mean(right[chosen], prompts, seed=seed)

    every = np.ones(len(pairs), dtype=bool)
    return LengthControl(
        correlation=_correlation(margins, difference),
        similar=accuracy(pairs.right, similar),
        adjusted=accuracy(right_answers(_without_length(margins, difference), labels), every),
        longer_is_better=accuracy(pairs.right, lean > 0),
        shorter_is_better=accuracy(pairs.right, lean < 0),
    )


def _without_length(
    margins: NDArray[np.float64], difference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Residuals of a line through 0: equal lengths say nothing about which answer is better."""
    square = float(difference @ difference)
    if square == 0.0:
        return margins
    residual: NDArray[np.float64] = margins - difference * float(difference @ margins) / square
    # What is left of a margin that length explains wholly is rounding, and no verdict.
    residual[np.abs(residual) < 1e-9 * np.abs(margins)] = 0.0
    return residual


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Without centring: a pair and its mirror image are the same pair."""
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm else 0.0
