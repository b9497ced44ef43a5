"""What the guard keeps of a probe: numbers about each answer, prompt by prompt.

    prompts ──policy──> completions ──reward, signals, text──> Measurement(step, columns)

Every probe asks the same prompts, so that row i of two measurements can be compared. What could
not be scored is NaN.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tutelage.records import Completion

__all__ = [
    "HELD_OUT",
    "Array",
    "Measurement",
    "describe",
    "deviation",
    "disagreement",
    "identical_openings",
    "mean",
    "repetition",
    "unit",
]

Array = NDArray[np.float64]

HELD_OUT = "held_out/"
"""What the column of a held-out signal begins with."""
_OPENING = 3
"""Words that make an opening."""
_GRAM = 3
"""Words that make a phrase."""


@dataclass
class Measurement:
    """One probe."""

    step: int
    """Rounds done before it."""
    columns: Mapping[str, Array]
    """[prompts] each."""
    undone: bool = field(default=False)
    """Whether training went back to an earlier probe afterwards."""

    def mean(self, column: str) -> float:
        """Over the answers that have a value; NaN where none has."""
        return mean(self.columns[column])

    def error(self, column: str) -> float:
        """Standard error of the mean; NaN of fewer than two values."""
        values = _finite(self.columns[column])
        count = len(values)
        return float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan

    @property
    def signals(self) -> list[str]:
        """Columns of held-out signals."""
        return [name for name in self.columns if name.startswith(HELD_OUT)]

    def to_json(self) -> dict[str, Any]:
        """Nested lists; NaN becomes null."""
        columns = {
            name: [value if math.isfinite(value) else None for value in values.tolist()]
            for name, values in self.columns.items()
        }
        return {"step": self.step, "undone": self.undone, "columns": columns}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        columns = {
            name: np.array([math.nan if value is None else value for value in values])
            for name, values in row["columns"].items()
        }
        return cls(row["step"], columns, row["undone"])


def describe(completions: Sequence[Completion]) -> dict[str, Array]:
    """What can be said of answers without judging them.

    Returns:
        length: tokens the policy wrote. ended: 1 where it ended by itself, 0 where truncated.
        repetition: see `repetition`. entropy: surprisal per token, in nats, whose expectation is
        the policy's entropy. openings: see `identical_openings`.
    """
    texts = [completion.text for completion in completions]
    return {
        "length": np.array([float(sum(each.written)) for each in completions]),
        "ended": np.array([float(not each.truncated) for each in completions]),
        "repetition": np.array([repetition(text) for text in texts]),
        "entropy": np.array([_surprisal(each) for each in completions]),
        "openings": identical_openings(texts),
    }


def mean(values: Array) -> float:
    """Of the values that are finite; NaN where none is."""
    known = _finite(values)
    return float(known.mean()) if len(known) else math.nan


def deviation(values: Array) -> float:
    """Standard deviation of the values that are finite; 0 where none is."""
    known = _finite(values)
    return float(known.std()) if len(known) else 0.0


def unit(history: Sequence[Measurement], column: str) -> float:
    """The column's standard deviation in the first measurement in which it varies; 0 if in none.

    A judge compares with the answers of the first, so that there all are alike to it.
    """
    spreads = (deviation(each.columns[column]) for each in history)
    return next((spread for spread in spreads if spread > 0.0), 0.0)


def _finite(values: Array) -> Array:
    found: Array = values[np.isfinite(values)]
    return found


def repetition(text: str) -> float:
    """Share of the text's word triples that stood before in it; 0 of a text without any."""
    words = text.lower().split()
    grams = [tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def identical_openings(texts: Sequence[str]) -> Array:
    """Values whose mean is the probability that two of the texts begin with the same words.

    With c_i the share of the other texts that begin as text i does, the mean of c is a
    U-statistic, whose standard error is twice that of independent values. The pseudo-values
    2 c_i - mean(c) of the jackknife have the same mean and the right standard error.
    """
    if len(texts) < 2:
        return np.zeros(len(texts))
    openings = [" ".join(text.lower().split()[:_OPENING]) for text in texts]
    count = Counter(openings)
    shares = np.array([(count[opening] - 1) / (len(texts) - 1) for opening in openings])
    pseudo: Array = 2 * shares - shares.mean()
    return pseudo


def disagreement(scores: Sequence[Array]) -> Array:
    """Standard deviation between several reward models' scores of each answer.

    Args:
        scores: [prompts] of each model, in its own sigmas.
    """
    spread: Array = np.std(np.stack(scores), axis=0)
    return spread


def _surprisal(completion: Completion) -> float:
    written = [
        value for value, mine in zip(completion.logprobs, completion.written, strict=True) if mine
    ]
    return -sum(written) / len(written) if written else math.nan
