"""What annotators say about comparisons, as events that are added and never changed.

    judged 0.75 ──> judged 1.0 ──> flagged "offensive" ──> withdrawn
    version 1       version 2      version 3               version 4
                    an edit        says nothing of         an undo: no judgement
                                   the judgement           is left

Versions count the events of one annotator on one comparison of one round. The newest that is no
flag is the annotator's word: a judgement gives a preference, a skip or a withdrawal gives none.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from tutelage.errors import DataError
from tutelage.records import Preference

__all__ = ["FLAGS", "WORDS", "Action", "ConflictError", "Event", "StaleEventError"]

Action = Literal["judged", "skipped", "withdrawn", "flagged", "unflagged"]
WORDS: tuple[Action, ...] = ("judged", "skipped", "withdrawn")
"""What takes the place of the judgement before it."""
FLAGS: tuple[Action, ...] = ("flagged", "unflagged")
"""What marks a comparison for somebody to look at, and leaves the judgement as it is."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing an annotator did with one comparison."""

    comparison: str
    """The comparison's id."""
    annotator: str
    action: Action
    preference: Preference | None = None
    """The judgement, of an event that is one."""
    note: str = ""
    """Why it was skipped, flagged or withdrawn."""
    round: int = 0
    created: str = ""
    """UTC time in ISO 8601."""
    version: int = 0
    """1 for the first event of the annotator on the comparison in this round; 0 until it is
    recorded."""
    sequence: int = 0
    """Place among all events of the store; 0 until it is recorded."""

    def __post_init__(self) -> None:
        """Refuses an action that is none, and a judgement that says nothing."""
        if self.action not in get_args(Action):
            raise ValueError(
                f"action is {self.action!r}, expected one of {', '.join(get_args(Action))}"
            )
        if (self.action == "judged") != (self.preference is not None):
            found = "without one" if self.preference is None else "with one"
            raise ValueError(f"a preference belongs to 'judged' alone: {self.action!r} {found}")

    @classmethod
    def judgement(cls, preference: Preference) -> Self:
        """The event of a preference."""
        comparison = preference.comparison
        return cls(
            comparison.id or comparison.prompt.id,
            preference.annotator,
            "judged",
            preference,
            round=preference.round,
            created=preference.created,
        )

    @property
    def key(self) -> tuple[str, str, int]:
        """Comparison, annotator and round, whose events are counted together."""
        return self.comparison, self.annotator, self.round

    def says_what(self, other: Self) -> bool:
        """Whether both say the same, whenever and however fast."""
        return self._undated() == other._undated()

    def _undated(self) -> Self:
        preference = self.preference and replace(self.preference, created="", seconds=None)
        return replace(self, preference=preference, created="", version=0, sequence=0)


class ConflictError(DataError):
    """A judgement that contradicts what is recorded under its key; nothing was recorded."""

    def __init__(self, message: str, preference: Preference) -> None:
        """Keeps the new judgement, so that its place in a file can be named."""
        self.preference = preference
        super().__init__(message)


class StaleEventError(DataError):
    """Somebody edits what has been changed since they looked at it; nothing was recorded."""

    def __init__(self, event: Event, expected: int, current: Event | None) -> None:
        """Names both versions; `current` is the newest event there is."""
        self.current = current
        found = 0 if current is None else current.version
        super().__init__(
            f"{event.annotator!r} changes version {expected} of comparison {event.comparison!r}, "
            f"which is at version {found}: look at it again, then change that"
        )
