"""How a project's labels look: agreement among people, and what each of them does.

latest judgement of each person on each task ──> alpha, kappa, conflicts
                                             └─> per person: gold, agreement, speed, sides
"""

import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from tutelage.feedback.gather import Agreement
from tutelage.feedback.server.agreement import cohen_kappa, krippendorff_alpha, mean_kappa
from tutelage.feedback.server.gold import gold_accuracy
from tutelage.records import Preference

__all__ = [
    "AnnotatorQuality",
    "Conflict",
    "Quality",
    "agreement_of_people",
    "conflicts",
    "quality",
    "side",
]

_LATEST = """
SELECT e.* FROM page_events AS e JOIN page_tasks AS t ON t.id = e.task
WHERE t.project = ? AND e.action = 'label' AND t.gold {gold} NULL AND NOT EXISTS (
    SELECT 1 FROM page_events AS newer WHERE newer.task = e.task
    AND newer.annotator = e.annotator AND newer.action = 'label' AND newer.version > e.version
) ORDER BY e.sequence
"""


@dataclass(frozen=True)
class AnnotatorQuality:
    """What one person's labels look like; NaN where nothing is known."""

    name: str
    labels: int
    gold: float
    """Accuracy on gold items."""
    num_gold: int
    kappa: float
    """Cohen's kappa with everybody else, over the tasks that are shared."""
    seconds: float
    """Median time of a label."""
    left: float
    """Share of labels, ties aside, that prefer the left answer: 0.5 without a favourite side."""
    ties: float
    """Share of ties."""
    skipped: int


@dataclass(frozen=True)
class Quality:
    """What the labels of a project look like."""

    shared: int
    """Tasks with two labels or more."""
    alpha: float
    """Krippendorff's, of left, tie and right."""
    alpha_of_scale: float
    """Krippendorff's, ordinal, of the whole scale."""
    kappa: float
    annotators: tuple[AnnotatorQuality, ...]


@dataclass(frozen=True)
class Conflict:
    """A task on which people contradict each other, or which somebody has flagged."""

    task: int
    votes: tuple[tuple[str, float], ...]
    """(person, p_a)."""
    flags: tuple[str, ...]
    """What those who flagged it wrote."""
    settled: bool


def quality(db: sqlite3.Connection, project: int) -> Quality:
    """Agreement and the work of each annotator of a project."""
    rows = db.execute(_LATEST.format(gold="IS"), (project,)).fetchall()
    items: dict[int, dict[str, float]] = defaultdict(dict)
    for row in rows:
        items[row["task"]][row["annotator"]] = row["p_a"]
    sides = [{who: side(p_a) for who, p_a in item.items()} for item in items.values()]
    known = _gold(db, project)
    skipped = _skipped(db, project)
    names = sorted({row["annotator"] for row in rows} | known.keys() | skipped.keys())
    return Quality(
        shared=sum(len(item) > 1 for item in items.values()),
        alpha=krippendorff_alpha(sides),
        alpha_of_scale=krippendorff_alpha(items.values(), "ordinal"),
        kappa=mean_kappa(sides),
        annotators=tuple(
            _annotator(
                name,
                [row for row in rows if row["annotator"] == name],
                known.get(name, []),
                [
                    (item[name], who)
                    for item in sides
                    if name in item
                    for who in _others(item, name)
                ],
                skipped.get(name, 0),
            )
            for name in names
        ),
    )


def agreement_of_people(preferences: Iterable[Preference]) -> Agreement | None:
    """How far each two people agree on what both have judged; None where nothing is shared."""
    items: dict[str, dict[str, float]] = defaultdict(dict)
    for row in preferences:
        items[row.comparison.id][row.annotator] = side(row.p_a)
    shared = [item for item in items.values() if len(item) > 1]
    if not shared:
        return None
    equal = [one == other for item in shared for one, other in combinations(item.values(), 2)]
    return Agreement(len(shared), sum(equal) / len(equal), mean_kappa(shared))


def side(p_a: float) -> float:
    """1 where a is better, 0 for a tie, -1 where b is better."""
    return float((p_a > 0.5) - (p_a < 0.5))


def _others(item: Mapping[str, float], name: str) -> list[float]:
    return [value for who, value in item.items() if who != name]


def _annotator(
    name: str,
    rows: Sequence[sqlite3.Row],
    gold: Sequence[tuple[float, float]],
    shared: Sequence[tuple[float, float]],
    skipped: int,
) -> AnnotatorQuality:
    decided = [row for row in rows if row["p_a"] != 0.5]
    left = sum((row["p_a"] > 0.5) == bool(row["a_left"]) for row in decided)
    times = [row["seconds"] for row in rows if row["seconds"] is not None]
    return AnnotatorQuality(
        name=name,
        labels=len(rows),
        gold=gold_accuracy(gold),
        num_gold=len(gold),
        kappa=cohen_kappa(shared),
        seconds=median(times) if times else math.nan,
        left=left / len(decided) if decided else math.nan,
        ties=1.0 - len(decided) / len(rows) if rows else math.nan,
        skipped=skipped,
    )


def _gold(db: sqlite3.Connection, project: int) -> Mapping[str, list[tuple[float, float]]]:
    known = dict(
        db.execute(
            "SELECT id, gold FROM page_tasks WHERE project = ? AND gold IS NOT NULL", (project,)
        )
    )
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in db.execute(_LATEST.format(gold="IS NOT"), (project,)):
        found[row["annotator"]].append((row["p_a"], known[row["task"]]))
    return found


def _skipped(db: sqlite3.Connection, project: int) -> Mapping[str, int]:
    query = """SELECT e.annotator, count(DISTINCT e.task) FROM page_events AS e
        JOIN page_tasks AS t ON t.id = e.task
        WHERE t.project = ? AND e.action IN ('skip', 'flag') GROUP BY e.annotator"""
    return dict(db.execute(query, (project,)).fetchall())


def conflicts(db: sqlite3.Connection, project: int) -> list[Conflict]:
    """What a reviewer has to look at, the open ones first."""
    votes: dict[int, dict[str, float]] = defaultdict(dict)
    for row in db.execute(_LATEST.format(gold="IS"), (project,)):
        votes[row["task"]][row["annotator"]] = row["p_a"]
    flags: dict[int, list[str]] = defaultdict(list)
    settled: set[int] = set()
    query = """SELECT e.task, e.action, e.rationale FROM page_events AS e
        JOIN page_tasks AS t ON t.id = e.task
        WHERE t.project = ? AND t.kind = 'compare' AND e.action IN ('flag', 'settle')"""
    for row in db.execute(query, (project,)):
        if row["action"] == "flag":
            flags[row["task"]].append(row["rationale"])
        else:
            settled.add(row["task"])
    tasks = {task for task, item in votes.items() if len(set(map(side, item.values()))) > 1}
    found = [
        Conflict(task, tuple(votes[task].items()), tuple(flags[task]), task in settled)
        for task in sorted(tasks | flags.keys())
    ]
    return sorted(found, key=lambda conflict: conflict.settled)
