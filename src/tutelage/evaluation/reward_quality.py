"""How good a reward model is: accuracy, calibration, and what it pays for length."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.evaluation.calibration import calibration
from tutelage.evaluation.intervals import Estimate, bootstrap_mean
from tutelage.evaluation.scored_pairs import right_answers

__all__ = ["LengthRelation", "RewardQuality", "length_relation", "quality"]

_SCATTER_POINTS = 400
_ENOUGH = 30
"""Answers beyond the threshold below which no slope is fitted to them."""


@dataclass(frozen=True)
class LengthRelation:
    """Scores of the reference's answers against their lengths in tokens."""

    mean: float
    std: float
    correlation: float
    slope: float
    """Sigmas per token."""
    threshold: float
    """Tokens: 90 % quantile of the lengths."""
    floor: float
    """Lowest score, in sigmas."""
    points: tuple[tuple[int, float], ...]
    """Some (length, score in sigmas), for a plot."""

    def to_json(self) -> dict[str, Any]:
        """Its part of `reward.json`."""
        return {
            "mean": self.mean,
            "std": self.std,
            "length_correlation": self.correlation,
            "length_slope": self.slope,
            "length_threshold": self.threshold,
            "floor": self.floor,
            "scatter": [list(point) for point in self.points],
        }


@dataclass
class RewardQuality:
    """What is known about a reward model from held-out pairs."""

    accuracy: Estimate
    loss: float
    """Negative log-likelihood of the labels."""
    brier: float
    ece: float
    """Expected calibration error over ten bins."""
    reliability: list[dict[str, float]]
    lengths: LengthRelation | None = field(default=None)

    @property
    def length_correlation(self) -> float:
        """Correlation of score and length on the reference's answers; 0 when not measured."""
        return self.lengths.correlation if self.lengths else 0.0

    @property
    def length_slope(self) -> float:
        """Sigmas per token; 0 when not measured."""
        return self.lengths.slope if self.lengths else 0.0

    def describe_lengths(self, relation: LengthRelation) -> None:
        """Adds what the model pays for length."""
        self.lengths = relation

    def to_json(self) -> dict[str, Any]:
        """What `reward.json` holds."""
        row: dict[str, Any] = {
            "held_out_accuracy": self.accuracy.to_json(),
            "held_out_loss": self.loss,
            "brier": self.brier,
            "ece": self.ece,
            "reliability": self.reliability,
        }
        if self.lengths is not None:
            row |= self.lengths.to_json()
        return row


def quality(margins: Sequence[float], labels: Sequence[float], *, seed: int = 0) -> RewardQuality:
    """Accuracy with a bootstrap interval, and calibration of sigma(margin).

    Args:
        margins: r_a - r_b of each pair.
        labels: probability that a is better.
        seed: of the bootstrap.

    Raises:
        DataError: there are no pairs.
    """
    if not len(margins):
        raise DataError(
            "there are no held-out pairs to measure the reward model on: raise held_out"
        )
    margin, label = np.asarray(margins, dtype=float), np.asarray(labels, dtype=float)
    measured = calibration(margin, label)
    return RewardQuality(
        accuracy=bootstrap_mean(right_answers(margin, label), seed=seed),
        loss=measured.loss,
        brier=measured.brier,
        ece=measured.ece,
        reliability=list(measured.bins),
    )


def length_relation(scores: Sequence[float], lengths: Sequence[int]) -> LengthRelation:
    """Mean, spread and length slope of raw scores.

    The slope is fitted by least squares over all answers and over those longer than T0, the
    90 % quantile of the lengths; the larger one counts, since a penalty below what the model pays
    for a token only delays the growth.
    """
    raw, tokens = np.asarray(scores, dtype=float), np.asarray(lengths, dtype=float)
    mean, std = float(raw.mean()), float(raw.std()) or 1.0
    sigma = (raw - mean) / std
    threshold = float(np.quantile(tokens, 0.9))
    beyond = tokens > threshold
    slopes = [_slope(tokens, sigma)]
    if beyond.sum() >= _ENOUGH:
        slopes.append(_slope(tokens[beyond], sigma[beyond]))
    spread = np.ptp(tokens) > 0 and np.ptp(raw) > 0
    correlation = float(np.corrcoef(tokens, sigma)[0, 1]) if spread else 0.0
    shown = random.Random(0).sample(range(len(raw)), min(_SCATTER_POINTS, len(raw)))
    return LengthRelation(
        mean=mean,
        std=std,
        correlation=correlation,
        slope=max(slopes),
        threshold=threshold,
        floor=float(sigma.min()),
        points=tuple((int(tokens[i]), round(float(sigma[i]), 4)) for i in shown),
    )


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Least-squares slope; 0 where x does not vary."""
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 and np.ptp(x) > 0 else 0.0
