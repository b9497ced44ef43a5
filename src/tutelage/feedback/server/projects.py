"""Projects: what is asked, of how many people, and the tasks that are imported into them.

A row with `a` and `b` is a comparison, with `gold` (the probability that `a` is better) a question
whose answer is known; a row with a prompt alone asks for an answer to be written.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.errors import ConfigError, DataError
from tutelage.feedback.server import clock
from tutelage.feedback.server.audit import note
from tutelage.feedback.server.database import Database
from tutelage.records import Comparison, Prompt

__all__ = ["CRITERIA", "Progress", "Project", "ProjectSettings", "Projects", "Scale", "settings_of"]

CRITERIA = ("helpful", "honest", "harmless", "concise")
Scale = Literal["seven", "three"]
_CRITERION = re.compile(r"[a-z][a-z -]{0,29}")


@dataclass(frozen=True)
class ProjectSettings:
    """What an admin decides about a project."""

    guidelines: str = ""
    """Markdown."""
    scale: Scale = "seven"
    """seven: 1 (left is much better) to 7. three: left, tie, right."""
    criteria: tuple[str, ...] = CRITERIA
    """Which answer is better by each of these may be marked as well."""
    quota: int = 2
    """People who judge each task."""
    gold_every: int = 10
    """One task in so many, on average, is a gold one."""
    lease_seconds: float = 900.0
    """How long a task is kept for whoever was shown it."""
    open: bool = True

    def __post_init__(self) -> None:
        """Refuses what could not be asked."""
        if self.scale not in ("seven", "three"):
            raise ConfigError(f"the scale is seven or three, found {self.scale!r}")
        if self.quota < 1 or self.gold_every < 2 or self.lease_seconds < 1:
            raise ConfigError(
                "quota is 1 or more, gold_every 2 or more, and a lease lasts a second at least; "
                f"found {self.quota}, {self.gold_every} and {self.lease_seconds:g}"
            )
        if bad := [each for each in self.criteria if not _CRITERION.fullmatch(each)]:
            raise ConfigError(f"a criterion is a word or two in lower case, found {bad[0]!r}")

    @property
    def instructions(self) -> str:
        """SHA-256 of the guidelines; empty where there are none."""
        return hashlib.sha256(self.guidelines.encode()).hexdigest() if self.guidelines else ""

    @property
    def largest(self) -> int:
        """The highest choice of the scale."""
        return 7 if self.scale == "seven" else 3


@dataclass(frozen=True)
class Project:
    """A project with its number and name."""

    id: int
    name: str
    settings: ProjectSettings


@dataclass(frozen=True)
class Progress:
    """How far a project has come."""

    tasks: int
    wanted: int
    """Labels, over all tasks that are no gold items."""
    labels: int
    gold: int


@dataclass(frozen=True)
class Projects:
    """The projects of a database."""

    database: Database

    def create(self, name: str, settings: ProjectSettings, made_by: str) -> Project:
        """Makes a project.

        Raises:
            ConfigError: the name is taken, empty or too long.
        """
        name = " ".join(name.split())
        if not 1 <= len(name) <= 80:
            raise ConfigError("a project's name has 1 to 80 characters")
        with self.database.writing() as db:
            if _by_name(db, name):
                raise ConfigError(f"there is a project {name} already")
            columns = _columns(settings) | {"name": name, "created": clock.now()}
            names, marks = ", ".join(columns), ", ".join("?" * len(columns))
            insert = f"INSERT INTO page_projects ({names}) VALUES ({marks})"
            cursor = db.execute(insert, tuple(columns.values()))
            note(db, made_by, "project", f"{name} created")
            return Project(int(cursor.lastrowid or 0), name, settings)

    def change(self, project: int, settings: ProjectSettings, changed_by: str) -> None:
        """Gives a project other settings. A smaller quota takes no label away."""
        columns = _columns(settings)
        sets = ", ".join(f"{name} = ?" for name in columns)
        with self.database.writing() as db:
            update = f"UPDATE page_projects SET {sets} WHERE id = ?"
            db.execute(update, (*columns.values(), project))
            told = {name: columns[name] for name in ("scale", "quota", "gold_every", "open")}
            told["guidelines"] = settings.instructions[:12]
            note(db, changed_by, "settings", f"project {project}: {json.dumps(told)}")

    def all(self) -> list[Project]:
        """All projects in the order they were made."""
        with self.database.reading() as db:
            rows = db.execute("SELECT * FROM page_projects ORDER BY id").fetchall()
        return list(map(_project, rows))

    def find(self, project: int) -> Project | None:
        """A project by its number."""
        with self.database.reading() as db:
            query = "SELECT * FROM page_projects WHERE id = ?"
            row = db.execute(query, (project,)).fetchone()
        return _project(row) if row else None

    def named(self, name: str) -> Project | None:
        """A project by its name."""
        with self.database.reading() as db:
            row = _by_name(db, name)
        return _project(row) if row else None

    def created(self, project: int) -> float:
        """When a project was made, in seconds since 1970."""
        with self.database.reading() as db:
            query = "SELECT created FROM page_projects WHERE id = ?"
            return float(db.execute(query, (project,)).fetchone()[0])

    def add(self, project: int, rows: Iterable[Mapping[str, Any]], added_by: str) -> int:
        """Imports tasks, all or none, and returns how many were new.

        Raises:
            DataError: a row is no task, or its id belongs to another text or project.
        """
        added = 0
        with self.database.writing() as db:
            for number, row in enumerate(rows, 1):
                added += _add(db, project, number, _task(number, row))
            note(db, added_by, "import", f"{added} tasks into project {project}")
        return added

    def progress(self, project: int) -> Progress:
        """How far a project has come."""
        query = """SELECT count(*), coalesce(sum(min(taken, quota)), 0), max(quota),
            coalesce(sum(gold IS NOT NULL), 0)
            FROM page_tasks JOIN page_projects ON page_projects.id = project WHERE project = ?"""
        with self.database.reading() as db:
            tasks, labels, quota, gold = db.execute(query, (project,)).fetchone()
        return Progress(tasks, (tasks - gold) * (quota or 0), labels, gold)


@dataclass(frozen=True)
class _Task:
    comparison: str
    kind: str
    record: str
    gold: float | None


def _task(number: int, row: Mapping[str, Any]) -> _Task:
    try:
        if "a" not in row and "b" not in row:
            prompt = Prompt.from_json(row)
            _require_texts(*(message.content for message in prompt.messages))
            return _Task(prompt.id, "write", _dump(prompt.to_json()), None)
        comparison = Comparison.from_json(row)
        _require_texts(*(m.content for m in comparison.prompt.messages), comparison.a, comparison.b)
        if comparison.a == comparison.b:
            raise ValueError("both answers are the same text")
        gold = None if row.get("gold") is None else float(row["gold"])
        if gold is not None and not 0.0 <= gold <= 1.0:
            raise ValueError(f"gold is a probability, found {gold:g}")
        return _Task(comparison.id, "compare", _dump(comparison.to_json()), gold)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"row {number} is no task: {reason}. Expected id, prompt (a list of role and "
            "content), a and b; without a and b people write an answer"
        ) from error


def _require_texts(*texts: object) -> None:
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("prompt, a and b are texts")


def _dump(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _add(db: sqlite3.Connection, project: int, number: int, task: _Task) -> int:
    query = "SELECT project, record, gold FROM page_tasks WHERE comparison = ?"
    known = db.execute(query, (task.comparison,)).fetchone()
    if known is None:
        db.execute(
            "INSERT INTO page_tasks (project, comparison, record, kind, gold) VALUES (?,?,?,?,?)",
            (project, task.comparison, task.record, task.kind, task.gold),
        )
        return 1
    if known["project"] != project:
        raise DataError(
            f"row {number}: {task.comparison!r} is a task of project {known['project']} already: "
            "give it an id of its own to ask again"
        )
    if (known["record"], known["gold"]) != (task.record, task.gold):
        raise DataError(f"row {number}: {task.comparison!r} is there already with another content")
    return 0


def _columns(settings: ProjectSettings) -> dict[str, Any]:
    return {
        "guidelines": settings.guidelines,
        "scale": settings.scale,
        "criteria": json.dumps(settings.criteria),
        "quota": settings.quota,
        "gold_every": settings.gold_every,
        "lease_seconds": settings.lease_seconds,
        "open": settings.open,
    }


def _by_name(db: sqlite3.Connection, name: str) -> Any:
    return db.execute("SELECT * FROM page_projects WHERE name = ?", (name,)).fetchone()


def _project(row: sqlite3.Row) -> Project:
    return Project(row["id"], row["name"], settings_of(row))


def settings_of(row: Mapping[str, Any] | sqlite3.Row) -> ProjectSettings:
    """The settings in a row of `page_projects`."""
    criteria: Sequence[str] = json.loads(row["criteria"])
    return ProjectSettings(
        guidelines=row["guidelines"],
        scale=row["scale"],
        criteria=tuple(criteria),
        quota=row["quota"],
        gold_every=row["gold_every"],
        lease_seconds=row["lease_seconds"],
        open=bool(row["open"]),
    )
