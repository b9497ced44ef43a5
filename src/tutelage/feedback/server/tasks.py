"""Who is asked what: assignment within the quota, leases, and the side each answer stands on.

    claim: a task this person has open ──or──> a gold item, now and then ──or──> the task that
    lacks the fewest labels, of those that other people neither have labelled nor hold

A lease keeps a task for whoever was shown it, for some minutes. It is a hint that spares people
double work: that nobody labels twice and no quota is exceeded is decided when a label is written.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import Any

from tutelage.feedback.server import clock
from tutelage.feedback.server.database import Database
from tutelage.feedback.server.gold import is_due
from tutelage.feedback.server.projects import ProjectSettings, settings_of
from tutelage.records import Comparison, Prompt

__all__ = ["Assignment", "Tasks", "as_reviewer", "assignment"]

_OPEN_CLAIM = """
SELECT task FROM page_claims JOIN page_tasks ON page_tasks.id = task
WHERE annotator = :me AND version = 0 AND project = :project AND task != :leave
AND (gold IS NOT NULL OR taken + (
    SELECT count(*) FROM page_claims AS held WHERE held.task = page_tasks.id
    AND held.annotator != :me AND held.version = 0 AND held.leased_until > :now
) < :quota)
ORDER BY shown LIMIT 1
"""
_FREE_TASK = """
SELECT id FROM page_tasks
WHERE project = :project AND gold IS NULL AND taken < :quota AND id != :leave
AND NOT EXISTS (SELECT 1 FROM page_claims WHERE task = page_tasks.id AND annotator = :me)
AND taken + (
    SELECT count(*) FROM page_claims WHERE task = page_tasks.id
    AND version = 0 AND leased_until > :now
) < :quota
ORDER BY taken DESC, id LIMIT 1
"""
_GOLD_TASK = """
SELECT id FROM page_tasks WHERE project = :project AND gold IS NOT NULL AND id != :leave
AND NOT EXISTS (SELECT 1 FROM page_claims WHERE task = page_tasks.id AND annotator = :me)
ORDER BY id LIMIT 1
"""
_NUM_DONE = """
SELECT count(*) FROM page_claims JOIN page_tasks ON page_tasks.id = task
WHERE annotator = :me AND project = :project AND version > 0
"""
_CLAIM = """
INSERT INTO page_claims (task, annotator, a_left, shown, leased_until) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (task, annotator) DO UPDATE SET leased_until = excluded.leased_until
"""


@dataclass(frozen=True)
class Assignment:
    """A task as one person sees it."""

    task: int
    project: int
    settings: ProjectSettings
    prompt: Prompt
    comparison: Comparison | None
    """None where an answer is to be written."""
    a_left: bool
    version: int
    """Events of this person on this task."""
    event: Mapping[str, Any] | None
    """The latest of them."""

    @property
    def left(self) -> str:
        """The text that stands on the left."""
        assert self.comparison is not None
        return self.comparison.a if self.a_left else self.comparison.b

    @property
    def right(self) -> str:
        """The text that stands on the right."""
        assert self.comparison is not None
        return self.comparison.b if self.a_left else self.comparison.a


@dataclass(frozen=True)
class Tasks:
    """The tasks of a database."""

    database: Database
    random: Random = field(default_factory=SystemRandom)
    """Decides which answer stands on the left."""

    def claim(self, project: int, annotator: str, *, leave: int = 0) -> int | None:
        """The task that a person is to do next; None where there is none.

        Args:
            project: its number.
            annotator: who asks. Asked again before anything was done, the same task is given.
            leave: a task not to be given.
        """
        with self.database.writing() as db:
            query = "SELECT * FROM page_projects WHERE id = ? AND open"
            row = db.execute(query, (project,)).fetchone()
            if row is None:
                return None
            settings, time = settings_of(row), clock.now()
            asked = {"project": project, "me": annotator, "now": time, "leave": leave}
            asked["quota"] = settings.quota
            task = _choose(db, asked, settings)
            if task is not None:
                left = self.random.random() < 0.5
                claim = (task, annotator, left, time, time + settings.lease_seconds)
                db.execute(_CLAIM, claim)
            return task

    def shown(self, task: int, annotator: str) -> Assignment | None:
        """A task as this person sees it; None where it was never given to this person."""
        with self.database.reading() as db:
            return assignment(db, task, annotator)

    def history(self, project: int, annotator: str, most: int = 200) -> list[sqlite3.Row]:
        """The latest event of each of a person's tasks, newest first."""
        query = """SELECT e.task, e.action, e.choice, e.created, t.record
            FROM page_events AS e JOIN page_tasks AS t ON t.id = e.task
            JOIN page_claims AS c ON c.task = e.task AND c.annotator = e.annotator
            WHERE e.annotator = ? AND t.project = ? AND e.version = c.version - 1
            AND e.action != 'settle' ORDER BY e.sequence DESC LIMIT ?"""
        with self.database.reading() as db:
            return db.execute(query, (annotator, project, most)).fetchall()


def _choose(db: sqlite3.Connection, asked: dict[str, Any], settings: ProjectSettings) -> int | None:
    if (row := db.execute(_OPEN_CLAIM, asked).fetchone()) is not None:
        return int(row["task"])
    free = db.execute(_FREE_TASK, asked).fetchone()
    done = db.execute(_NUM_DONE, asked).fetchone()[0]
    # Gold items alone would tell people that they are gold.
    if free is not None and is_due(asked["me"], done, settings.gold_every):
        free = db.execute(_GOLD_TASK, asked).fetchone() or free
    return None if free is None else int(free["id"])


def assignment(db: sqlite3.Connection, task: int, annotator: str) -> Assignment | None:
    """`Tasks.shown`, within a transaction."""
    shown = _find(db, task, annotator)
    return shown[0] if shown and shown[1] else None


def as_reviewer(db: sqlite3.Connection, task: int, reviewer: str) -> Assignment | None:
    """A comparison as a reviewer sees it, who needs no claim; None where there is none.

    The answers stand in their own order, unless the reviewer has labelled them in another one.
    """
    shown = _find(db, task, reviewer)
    return shown[0] if shown and shown[0].comparison else None


def _find(db: sqlite3.Connection, task: int, annotator: str) -> tuple[Assignment, bool] | None:
    """A task with whether this person was given it."""
    query = """SELECT p.*, t.project, t.record, t.kind, c.a_left, c.version
        FROM page_tasks AS t JOIN page_projects AS p ON p.id = t.project
        LEFT JOIN page_claims AS c ON c.task = t.id AND c.annotator = ? WHERE t.id = ?"""
    row = db.execute(query, (annotator, task)).fetchone()
    if row is None:
        return None
    latest = """SELECT * FROM page_events WHERE task = ? AND annotator = ?
        ORDER BY version DESC LIMIT 1"""
    event = db.execute(latest, (task, annotator)).fetchone()
    record = json.loads(row["record"])
    comparison = Comparison.from_json(record) if row["kind"] == "compare" else None
    given = row["version"] is not None
    shown = Assignment(
        task=task,
        project=row["project"],
        settings=settings_of(row),
        prompt=comparison.prompt if comparison else Prompt.from_json(record),
        comparison=comparison,
        a_left=bool(row["a_left"]) if given else True,
        version=row["version"] or 0,
        event=dict(event) if event else None,
    )
    return shown, given
