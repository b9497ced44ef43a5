"""Judged pairs of answers with the margins that a scorer gives them.

preferences, margins ──> ScoredPairs ──> accuracy, calibration, length control, tables, worst
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.records import Preference

__all__ = ["ScoredPairs", "right_answers"]

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class ScoredPairs:
    """Preferences, and by how much a scorer puts the first answer above the second."""

    preferences: tuple[Preference, ...]
    margins: Numbers
    """Raw score of the first answer minus that of the second."""

    @classmethod
    def of(cls, preferences: Sequence[Preference], margins: Sequence[float | None]) -> Self:
        """Those pairs that could be scored.

        Raises:
            DataError: none could.
        """
        scored = [
            (row, margin)
            for row, margin in zip(preferences, margins, strict=True)
            if margin is not None
        ]
        if not scored:
            raise DataError(
                f"none of {len(preferences)} pairs to measure the reward model on could be "
                "scored: raise held_out or max_length"
            )
        return cls(tuple(row for row, _ in scored), np.array([margin for _, margin in scored]))

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.preferences)

    def select(self, chosen: Sequence[int] | NDArray[np.int64]) -> Self:
        """The given pairs."""
        return type(self)(tuple(self.preferences[i] for i in chosen), self.margins[list(chosen)])

    def with_margins(self, margins: Numbers) -> Self:
        """The same pairs as another scorer sees them."""
        return type(self)(self.preferences, margins)

    @property
    def labels(self) -> Numbers:
        """Probability that the first answer is the better one."""
        return np.array([row.p_a for row in self.preferences])

    @property
    def lengths(self) -> Numbers:
        """Characters of both answers, `[pairs, 2]`: no tokenizer's own view."""
        return np.array(
            [(len(row.comparison.a), len(row.comparison.b)) for row in self.preferences],
            dtype=float,
        ).reshape(-1, 2)

    @property
    def prompts(self) -> list[str]:
        """Id of each pair's prompt: pairs of one prompt are not independent."""
        return [row.comparison.prompt.id for row in self.preferences]

    @property
    def right(self) -> Numbers:
        """1 where the better answer scores higher, 0 where not, 1/2 where either is a tie."""
        return right_answers(self.margins, self.labels)


def right_answers(margins: Numbers, labels: Numbers) -> Numbers:
    """1 where margin and label agree, 0 where not, 1/2 where either is a tie."""
    right: Numbers = 0.5 + 0.5 * np.sign(margins) * np.sign(labels - 0.5)
    return right
