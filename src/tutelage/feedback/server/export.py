"""What people have said, as records: preferences, demonstrations, and tables for a spreadsheet.

All are read from one snapshot and given row by row, so that memory does not grow with them.
"""

import csv
import io
import json
import sqlite3
from collections.abc import Iterable, Iterator

from tutelage.feedback.server import clock
from tutelage.records import Comparison, Demonstration, Message, Preference, Prompt

__all__ = [
    "AS_STORED",
    "NEWEST",
    "OF_ONE_TASK",
    "csv_rows",
    "demonstrations",
    "json_lines",
    "preference_of",
    "preferences",
]

_PREFERENCES = """
SELECT e.*, t.record FROM page_events AS e CROSS JOIN page_tasks AS t ON t.id = e.task
WHERE e.round IS NOT NULL AND t.gold IS NULL
"""
"""Judgements that are training data: gold items are not.

SQLite takes the tables of a CROSS JOIN in this order, so that events come as they were stored and
none has to be sorted.
"""

NEWEST = f"""{_PREFERENCES} AND NOT EXISTS (
    SELECT 1 FROM page_events AS newer WHERE newer.task = e.task AND newer.round IS NOT NULL
    AND newer.annotator = e.annotator AND newer.version > e.version
)"""
"""The newest judgement of each person about each task."""

OF_ONE_TASK = " AND e.task = ? AND +e.annotator = ?"
"""Added to `NEWEST`: one task and person only.

The unary plus keeps SQLite from looking through all that the person has ever said instead of the
few judgements of the task.
"""

AS_STORED = " ORDER BY +e.sequence"
"""Added to `NEWEST`, in the order of storing; the unary plus as in `OF_ONE_TASK`."""

_LATEST = """ AND t.project = ? AND NOT EXISTS (
    SELECT 1 FROM page_events AS newer WHERE newer.task = e.task AND newer.round IS NOT NULL
    AND (newer.annotator = e.annotator OR newer.action = 'settle') AND newer.sequence > e.sequence
) AND (e.action = 'settle' OR NOT EXISTS (
    SELECT 1 FROM page_events AS settled WHERE settled.task = e.task AND settled.action = 'settle'
)) ORDER BY e.sequence
"""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def preference_of(row: sqlite3.Row) -> Preference:
    """The record of an event that is a judgement."""
    return Preference(
        comparison=Comparison.from_json(json.loads(row["record"])),
        p_a=row["p_a"],
        annotator=row["annotator"],
        rationale=row["rationale"],
        seconds=row["seconds"],
        created=clock.iso(row["created"]),
        strength=row["strength"],
        criteria=json.loads(row["criteria"]),
        instructions=row["instructions"],
    )


def preferences(db: sqlite3.Connection, project: int) -> Iterator[Preference]:
    """What counts of a project: each person's latest judgement, or the reviewer's."""
    return map(preference_of, db.execute(_PREFERENCES + _LATEST, (project,)))


def demonstrations(db: sqlite3.Connection, project: int) -> Iterator[Demonstration]:
    """The latest answer that each person has written to each prompt."""
    query = """SELECT e.*, t.record, t.kind, t.comparison FROM page_events AS e
        JOIN page_tasks AS t ON t.id = e.task
        WHERE t.project = ? AND e.answer != '' AND NOT EXISTS (
            SELECT 1 FROM page_events AS newer WHERE newer.task = e.task AND newer.answer != ''
            AND newer.annotator = e.annotator AND newer.sequence > e.sequence
        ) ORDER BY e.sequence"""
    for row in db.execute(query, (project,)):
        record = json.loads(row["record"])
        compared = row["kind"] == "compare"
        prompt = Comparison.from_json(record).prompt if compared else Prompt.from_json(record)
        yield Demonstration(
            id=f"{row['comparison']}/by-{row['annotator']}",
            messages=(*prompt.messages, Message("assistant", row["answer"])),
            source="people",
            category=prompt.category,
        )


def json_lines(rows: Iterable[Preference | Demonstration]) -> Iterator[str]:
    """One JSON object per line, in the schema of `preferences` or `sft`."""
    return (json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows)


def csv_rows(rows: Iterable[Preference]) -> Iterator[str]:
    """Lines of a table. No cell is read as a formula by whatever program opens it."""
    names = ("id", "prompt", "a", "b", "p_a", "annotator", "rationale", "seconds", "created")
    yield _csv_line(names)
    for row in rows:
        comparison = row.comparison
        prompt = "\n\n".join(f"{m.role}: {m.content}" for m in comparison.prompt.messages)
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        texts = (comparison.id, prompt, comparison.a, comparison.b)
        said = (f"{row.p_a:.6g}", row.annotator, row.rationale, seconds, row.created)
        yield _csv_line((*texts, *said))


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    safe = [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]
    csv.writer(line).writerow(safe)
    return line.getvalue()
