"""What people say about a task: checked and written in one transaction, then published.

    Submission ──record──> page_events (append-only) ──publish──> PreferenceStore ──> acknowledged

Each thing said is an event with the number of its version; saying it again is a new version, which
takes the place of the one before in the store, too. A submission has a key of its own, so that one
sent twice counts once, and names the version it was made from, so that nothing is overwritten
unseen.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tutelage.errors import ConfigError
from tutelage.feedback.server import clock
from tutelage.feedback.server.audit import note
from tutelage.feedback.server.database import Database
from tutelage.feedback.server.export import AS_STORED, NEWEST, OF_ONE_TASK, preference_of
from tutelage.feedback.server.projects import ProjectSettings
from tutelage.feedback.server.tasks import Assignment, assignment
from tutelage.feedback.store import PreferenceStore

__all__ = ["Action", "ConflictError", "Labels", "NotAssignedError", "Receipt", "Submission"]

Action = Literal["label", "answer", "skip", "flag", "settle"]
_LONGEST = 100_000
_LONGEST_BREAK = 3600.0
"""Seconds; who takes longer has done something else as well."""


class NotAssignedError(Exception):
    """The task was never given to this person."""


class ConflictError(Exception):
    """Something else was stored in the meantime, or the task is complete."""

    def __init__(self, message: str, stored: Mapping[str, Any] | None, version: int) -> None:
        """Keeps what is stored, for the page to show."""
        super().__init__(message)
        self.stored = stored
        self.version = version


@dataclass(frozen=True)
class Submission:
    """What a person says about a task."""

    action: Action
    key: str
    """Made by the page for this submission alone; the same when it is sent again."""
    expected: int = 0
    """The version that the person saw."""
    choice: int | None = None
    """1 (left is better) to the highest number of the scale (right is better)."""
    criteria: Mapping[str, str] = field(default_factory=dict)
    """Criterion -> left, tie or right."""
    rationale: str = ""
    answer: str = ""
    """A better answer, where the person has written one."""

    def __post_init__(self) -> None:
        """Refuses texts without bounds."""
        if not 8 <= len(self.key) <= 100:
            raise ConfigError("a submission's key has 8 to 100 characters")
        if max(len(self.rationale), len(self.answer)) > _LONGEST:
            raise ConfigError(f"a text has at most {_LONGEST} characters")
        for text in (self.key, self.rationale, self.answer):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ConfigError("the text holds half of a character pair: remove it")


@dataclass(frozen=True)
class Receipt:
    """What was stored."""

    sequence: int
    version: int
    """Events of this person on this task, this one included."""
    again: bool = False
    """Whether it had been stored before, by a submission with the same key."""


@dataclass(frozen=True)
class Labels:
    """Takes labels into a database and its preference store."""

    database: Database
    store: PreferenceStore

    def record(self, task: int, annotator: str, said: Submission) -> Receipt:
        """Stores what a person says; it is on the disk and published when this returns.

        Raises:
            NotAssignedError: the task was never given to this person.
            ConflictError: the person has said something else in another window, or others have
                completed the task. Nothing is stored.
            ConfigError: what is said does not fit what was asked.
        """
        with self.database.writing() as db:
            receipt = _stored_before(db, task, annotator, said.key)
            if receipt is None:
                if said.action == "settle":
                    _let_review(db, task, annotator)
                shown = assignment(db, task, annotator)
                if shown is None:
                    raise NotAssignedError
                receipt = _append(db, shown, annotator, said)
        self._publish(OF_ONE_TASK, (task, annotator))
        return receipt

    def publish_all(self) -> int:
        """Publishes what a killed process had stored and not published; returns how many."""
        return self._publish()

    def _publish(self, which: str = "", values: tuple[object, ...] = ()) -> int:
        # Read while nobody else publishes: what is newest then is also published last.
        with self.store.transaction() as connection, self.database.reading() as db:
            said = map(preference_of, db.execute(f"{NEWEST}{which}{AS_STORED}", values))
            return self.store.add(said, revise=True, connection=connection)


def _stored_before(db: sqlite3.Connection, task: int, annotator: str, key: str) -> Receipt | None:
    query = "SELECT sequence, version, task FROM page_events WHERE key = ?"
    row = db.execute(query, (f"{annotator}/{key}",)).fetchone()
    if row is None:
        return None
    if row["task"] != task:
        raise ConfigError("this key belongs to the submission of another task")
    return Receipt(row["sequence"], row["version"] + 1, again=True)


def _let_review(db: sqlite3.Connection, task: int, reviewer: str) -> None:
    """Whoever settles a conflict needs no claim; the answers stand in their own order."""
    if db.execute("SELECT 1 FROM page_tasks WHERE id = ? AND kind = 'compare'", (task,)).fetchone():
        claim = (task, reviewer, True, clock.now(), 0.0)
        db.execute("INSERT OR IGNORE INTO page_claims VALUES (?, ?, ?, ?, ?, 0)", claim)


def _append(db: sqlite3.Connection, shown: Assignment, annotator: str, said: Submission) -> Receipt:
    if said.expected != shown.version:
        raise ConflictError(
            "you have said something about this task in another window", shown.event, shown.version
        )
    event = _event(shown, said)
    if event["round"] is not None or said.action == "answer":
        event["slot"] = _take_slot(db, shown, annotator, said.action)
    if event["round"] is not None:
        rounds = """SELECT count(*) FROM page_events
            WHERE task = ? AND annotator = ? AND round IS NOT NULL"""
        event["round"] = db.execute(rounds, (shown.task, annotator)).fetchone()[0]
    claim = "SELECT shown FROM page_claims WHERE task = ? AND annotator = ?"
    took = clock.now() - db.execute(claim, (shown.task, annotator)).fetchone()["shown"]
    event |= {
        "task": shown.task,
        "annotator": annotator,
        "version": shown.version,
        "a_left": shown.a_left,
        "key": f"{annotator}/{said.key}",
        "created": clock.now(),
        # Only the first time is it known when the person began.
        "seconds": took if shown.version == 0 and 0.0 <= took < _LONGEST_BREAK else None,
        "instructions": shown.settings.instructions,
    }
    names, marks = ", ".join(event), ", ".join("?" * len(event))
    insert = f"INSERT INTO page_events ({names}) VALUES ({marks})"
    sequence = db.execute(insert, tuple(event.values())).lastrowid
    counted = "UPDATE page_claims SET version = version + 1 WHERE task = ? AND annotator = ?"
    db.execute(counted, (shown.task, annotator))
    if said.action in ("settle", "flag"):
        note(db, annotator, said.action, f"task {shown.task}")
    return Receipt(int(sequence or 0), shown.version + 1)


def _event(shown: Assignment, said: Submission) -> dict[str, Any]:
    """The columns that follow from what was said."""
    event: dict[str, Any] = {
        "action": said.action,
        "slot": None,
        "round": None,
        "rationale": said.rationale,
        "answer": said.answer,
    }
    if said.action == "answer" and not said.answer.strip():
        raise ConfigError("the answer is empty")
    if said.action not in ("label", "settle"):
        return event
    if shown.comparison is None:
        raise ConfigError("this task asks for an answer, not for a comparison")
    return event | _judgement(shown.settings, shown.a_left, said) | {"round": 0}


def _judgement(settings: ProjectSettings, a_left: bool, said: Submission) -> dict[str, Any]:
    largest = settings.largest
    if said.choice is None or not 1 <= said.choice <= largest:
        raise ConfigError(f"the choice is a number from 1 to {largest}, found {said.choice!r}")
    sides = {"left": 1.0, "tie": 0.5, "right": 0.0}
    if not (said.criteria.keys() <= set(settings.criteria)) or not (
        set(said.criteria.values()) <= sides.keys()
    ):
        raise ConfigError(f"criteria are {', '.join(settings.criteria)}: left, tie or right each")
    above = largest - said.choice if a_left else said.choice - 1
    marks = {name: sides[side] for name, side in said.criteria.items()}
    criteria = marks if a_left else {name: 1.0 - p_left for name, p_left in marks.items()}
    return {
        "p_a": above / (largest - 1),
        "strength": abs(said.choice - 4.0) if settings.scale == "seven" else None,
        "criteria": json.dumps(criteria),
        "choice": said.choice,
    }


def _take_slot(
    db: sqlite3.Connection, shown: Assignment, annotator: str, action: Action
) -> int | None:
    """The number of this person among those who judge the task; None where none is taken."""
    query = """SELECT taken, gold, EXISTS (
            SELECT 1 FROM page_events WHERE task = :task AND annotator = :me AND slot IS NOT NULL
        ) AS has FROM page_tasks WHERE id = :task"""
    row = db.execute(query, {"task": shown.task, "me": annotator}).fetchone()
    free = row["gold"] is not None or row["has"] or action == "settle"
    if free or (action == "answer" and shown.comparison is not None):
        return None
    if row["taken"] >= shown.settings.quota:
        raise ConflictError(
            "others have completed this task while it was open here", shown.event, shown.version
        )
    db.execute("UPDATE page_tasks SET taken = taken + 1 WHERE id = ?", (shown.task,))
    return int(row["taken"])
