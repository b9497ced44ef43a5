"""What becomes of numbers that are not finite.

    reward                    the score has failed: its row counts nowhere
    log-probability, value    nothing is learned from the round
    loss, gradient            no model takes the step, and no schedule moves on
         └──> not_finite/00000012-gradient.json: the rows, as the models saw them
                    └── the third step in a row, or more than one in a hundred: the end

No number is replaced by another one. All ranks hear of it through one function and do the same.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import CheckpointError, TrainingError
from tutelage.tracking.atomic import write_text_atomically

__all__ = ["AllTrue", "FiniteGuard", "alone"]

AllTrue = Callable[[bool], bool]
"""Whether a condition holds on all ranks: every rank calls it, every rank gets the answer."""

_log = logging.getLogger(__name__)

_IN_A_ROW = 3
_SHARE = 0.01
"""Skipped steps beyond which training is given up: in a row, or as a share of all. Fewer than
`_IN_A_ROW` are never too large a share."""
_MOST_FILES = 10
"""Files of one kind: more would say nothing new."""


def alone(condition: bool) -> bool:
    """The answer of a single process."""
    return condition


@dataclass
class FiniteGuard:
    """Decides whether a step is taken, and keeps the evidence where it is not."""

    folder: Path | None = None
    """Receives the rows; without it they are not written."""
    all_true: AllTrue = alone
    notify: Callable[[str], None] = _log.warning
    """Hears where evidence is."""
    steps: int = field(default=0, init=False)
    """Optimiser steps so far, skipped ones included."""
    skipped: int = field(default=0, init=False)
    """Steps skipped because a number was not finite."""
    _in_a_row: int = field(default=0, init=False)
    _files: Counter[str] = field(default_factory=Counter, init=False)

    def allows_step(self, finite: bool, evidence: Callable[[], Mapping[str, Any]]) -> bool:
        """Whether the models take a step; every rank asks once per step.

        Args:
            finite: whether loss and gradients are, on this rank.
            evidence: figures and rows to write down if they are not.

        Raises:
            TrainingError: too many steps were skipped.
        """
        self.steps += 1
        if self.all_true(finite):
            self._in_a_row = 0
            return True
        self._skip("gradient", finite, evidence)
        return False

    def allows_round(self, finite: bool, evidence: Callable[[], Mapping[str, Any]]) -> bool:
        """Whether sampled rows are learned from; a round that is not counts as a skipped step.

        Raises:
            TrainingError: too many steps were skipped.
        """
        if self.all_true(finite):
            return True
        self.steps += 1
        self._skip("rollout", finite, evidence)
        return False

    def record(self, kind: str, evidence: Mapping[str, Any], *, always: bool = False) -> str:
        """Writes evidence down and says where, for a message.

        Args:
            kind: of number, part of the file's name.
            evidence: JSON; numbers that are not finite become the words nan, inf and -inf.
            always: also where there are many files of this kind already.
        """
        self._files[kind] += 1
        if self.folder is None or (self._files[kind] > _MOST_FILES and not always):
            return "the rows were not written to a file"
        path = self.folder / f"{self.steps:08}-{kind}.json"
        text = json.dumps(_spelled_out(evidence), ensure_ascii=False, allow_nan=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text_atomically(path, text + "\n")
        except (CheckpointError, OSError) as error:
            # The diagnosis must not be hidden by a full disk.
            return f"the rows could not be written ({error})"
        self.notify(f"numbers of a {kind} are not finite: the rows are in {path}")
        return f"the rows are in {path}"

    def _skip(self, kind: str, finite: bool, evidence: Callable[[], Mapping[str, Any]]) -> None:
        self.skipped += 1
        self._in_a_row += 1
        too_many = self._in_a_row >= _IN_A_ROW or self.skipped > _SHARE * self.steps
        stuck = too_many and self.skipped >= _IN_A_ROW
        place = "the rows are another process's"
        if not finite:
            place = self.record(kind, evidence(), always=stuck)
        if stuck:
            raise TrainingError(
                f"{self.skipped} of {self.steps} optimiser steps, {self._in_a_row} of them in a "
                f"row, were skipped because numbers were not finite, the last time a {kind}: "
                f"{place}. The newest checkpoint is from before. Lower the learning rate, or look "
                "for extreme rewards"
            )

    def state_dict(self) -> dict[str, int]:
        """The counters."""
        return {"steps": self.steps, "skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Inverse of `state_dict`."""
        self.steps, self.skipped = state["steps"], state["skipped"]
        self._in_a_row = state["in_a_row"]


def _spelled_out(value: Any) -> Any:
    """The value with words for the numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _spelled_out(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled_out(item) for item in value]
    return value
