"""Whether a reward model's margins are log-odds, and the temperature that makes them so.

    P(a is better) = sigma(margin / T)

One temperature per model (Guo et al. 2017, arXiv:1706.04599, section 4.2). What it gains is
measured on prompts on which it was not fitted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Calibration", "Temperature", "calibration", "fit_temperature", "temperature"]

Numbers = NDArray[np.float64]

_BINS = 10
_STEPS = 60
_RANGE = 20.0
"""The inverse temperature times the margins' scale lies within this."""


@dataclass(frozen=True)
class Calibration:
    """How well predicted probabilities match the labels."""

    loss: float
    """Negative log-likelihood of the labels."""
    brier: float
    ece: float
    """Expected calibration error over ten bins; each pair counts in both orders."""
    bins: tuple[dict[str, float], ...]

    def to_json(self) -> dict[str, float]:
        """The three numbers."""
        return {"loss": self.loss, "brier": self.brier, "ece": self.ece}


@dataclass(frozen=True)
class Temperature:
    """The temperature of all pairs, and the calibration it brings to pairs it has not seen."""

    temperature: float
    loss: float
    brier: float
    ece: float

    def to_json(self) -> dict[str, float]:
        """All fields."""
        return asdict(self)


def calibration(margins: Numbers, labels: Numbers) -> Calibration:
    """Likelihood, Brier score and calibration error of sigma(margin).

    Args:
        margins: r_a - r_b of each pair.
        labels: probability that a is better.
    """
    predicted = np.exp(-np.logaddexp(0.0, -margins))
    # log(1 + exp(x)) without overflow.
    loss = labels * np.logaddexp(0.0, -margins) + (1.0 - labels) * np.logaddexp(0.0, margins)
    bins = _reliability(
        np.concatenate([predicted, 1.0 - predicted]), np.concatenate([labels, 1.0 - labels])
    )
    count = sum(row["count"] for row in bins)
    return Calibration(
        loss=float(loss.mean()),
        brier=float(((predicted - labels) ** 2).mean()),
        ece=sum(row["count"] * abs(row["predicted"] - row["observed"]) for row in bins) / count,
        bins=tuple(bins),
    )


def _reliability(predicted: Numbers, observed: Numbers) -> list[dict[str, float]]:
    """Mean prediction and mean label per bin."""
    rows = []
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    which = np.clip(np.digitize(predicted, edges) - 1, 0, _BINS - 1)
    for index in range(_BINS):
        inside = which == index
        if inside.any():
            rows.append(
                {
                    "low": float(edges[index]),
                    "high": float(edges[index + 1]),
                    "predicted": float(predicted[inside].mean()),
                    "observed": float(observed[inside].mean()),
                    "count": float(inside.sum()),
                }
            )
    return rows


def fit_temperature(margins: Numbers, labels: Numbers) -> float:
    """T of the least negative log-likelihood, which is convex in 1 / T.

    Where the labels contradict the margins no temperature helps, and T is the largest looked at.
    """
    scale = float(np.abs(margins).mean())
    if scale == 0.0:
        return 1.0
    low, high = 0.0, _RANGE
    unit = margins / scale
    for _ in range(_STEPS):
        middle = (low + high) / 2
        # d NLL / d (1 / T) = sum of margin (sigma(margin / T) - label).
        slope = float((unit * (np.exp(-np.logaddexp(0.0, -middle * unit)) - labels)).sum())
        low, high = (middle, high) if slope < 0 else (low, middle)
    return scale / max((low + high) / 2, 1.0 / _RANGE**2)


def temperature(margins: Numbers, labels: Numbers, prompts: Sequence[str]) -> Temperature:
    """The fitted temperature; the calibration is that of either half under the other's fit.

    Pairs of one prompt are in the same half.
    """
    order = {prompt: number for number, prompt in enumerate(sorted(set(prompts)))}
    half = np.array([order[prompt] % 2 for prompt in prompts])
    scaled = np.array(margins, dtype=float)
    for side in (0, 1):
        if (half != side).any():
            scaled[half == side] /= fit_temperature(margins[half != side], labels[half != side])
    after = calibration(scaled, labels)
    return Temperature(fit_temperature(margins, labels), after.loss, after.brier, after.ece)
