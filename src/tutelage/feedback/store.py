"""The store of preferences: every judgement ever made, none changed afterwards.

    annotators, judges ──add──> table `preferences` (append-only) ──preferences──> reward model
                                       └──export_jsonl──> file ──import_jsonl──> another store

SQLite by default, in a file that several processes may write at once; any other database that
SQLAlchemy reaches with an upsert (PostgreSQL) by URL. A batch is added whole or not at all, so
a process may be killed at any moment and run again: what is there already is not added twice.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import load_preferences
from tutelage.errors import DataError
from tutelage.records import Preference

__all__ = ["PreferenceStore"]

_CHUNK = 400
"""Keys per query, below the number of variables that old SQLite versions allow."""
_LOCK_SECONDS = 60
"""How long a writer waits for another one."""
_INSERTS: dict[str, Callable[[Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}

_METADATA = MetaData()
_TABLE = Table(
    "preferences",
    _METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("comparison", String, nullable=False),
    Column("annotator", String, nullable=False),
    Column("round", Integer, nullable=False),
    Column("kind", String, nullable=False),
    Column("source", String, nullable=False),
    Column("record", Text, nullable=False),
    UniqueConstraint("comparison", "annotator", "round"),
    sqlite_autoincrement=True,
)
_APPEND_ONLY = """
CREATE TRIGGER IF NOT EXISTS preferences_no_{verb} BEFORE {verb} ON preferences
BEGIN SELECT RAISE(ABORT, 'preferences are never changed: add one of a new round'); END
"""

Key = tuple[str, str, int]


class PreferenceStore:
    """Preferences in a database; one per comparison, annotator and round.

        with PreferenceStore("runs/quickstart/preferences.db") as store:
            store.add(preferences)

    Every operation raises `DataError` when the database cannot be used.
    """

    def __init__(self, location: str | Path) -> None:
        """Opens the store and creates it when missing.

        Args:
            location: a file for SQLite, or a database URL such as `postgresql://host/name`.
        """
        text = str(location)
        try:
            if "://" not in text:
                Path(text).parent.mkdir(parents=True, exist_ok=True)
                text = f"sqlite:///{text}"
            self._engine = create_engine(text)
        except (SQLAlchemyError, ImportError, OSError) as error:
            raise DataError(f"cannot use a preference store at {location}: {error}") from error
        self._name = self._engine.url.render_as_string(hide_password=True)
        if self._engine.dialect.name not in _INSERTS:
            raise DataError(
                f"a preference store cannot be kept in {self._engine.dialect.name}: use a file "
                f"for SQLite, or a URL of {' or '.join(_INSERTS)}"
            )
        if self._engine.dialect.name == "sqlite":
            _prepare_sqlite(self._engine)
        with self._writing() as connection:
            _METADATA.create_all(connection)
            if self._engine.dialect.name == "sqlite":
                for verb in ("UPDATE", "DELETE"):
                    connection.exec_driver_sql(_APPEND_ONLY.format(verb=verb))

    def add(self, preferences: Iterable[Preference]) -> int:
        """Appends preferences in one transaction and returns how many were new.

        One whose comparison, annotator and round are there already is passed over.

        Raises:
            DataError: what is there already has other texts or another `p_a`. Nothing is added.
        """
        added = 0
        with self._writing() as connection:
            remaining = iter(preferences)
            while chunk := list(islice(remaining, _CHUNK)):
                added += self._add_chunk(connection, chunk)
        return added

    def preferences(
        self, *, kind: str | None = None, annotator: str | None = None
    ) -> list[Preference]:
        """All preferences in the order they came, or those of one kind or annotator."""
        query = select(_TABLE.c.record).order_by(_TABLE.c.sequence)
        if kind is not None:
            query = query.where(_TABLE.c.kind == kind)
        if annotator is not None:
            query = query.where(_TABLE.c.annotator == annotator)
        with self._reading() as connection:
            return [_from_record(record) for record in connection.scalars(query)]

    def judged(self, annotator: str, round: int = 0) -> frozenset[str]:
        """Ids of the comparisons an annotator has judged: what a resumed round leaves out."""
        query = select(_TABLE.c.comparison).where(
            _TABLE.c.annotator == annotator, _TABLE.c.round == round
        )
        with self._reading() as connection:
            return frozenset(connection.scalars(query))

    def counts(
        self, by: Literal["source", "kind", "annotator", "round"] = "source"
    ) -> dict[str, int]:
        """Number of preferences per source of prompts, kind, annotator or round."""
        column = _TABLE.c[by]
        query = select(column, func.count()).group_by(column).order_by(column)
        with self._reading() as connection:
            return {str(name): int(count) for name, count in connection.execute(query)}

    def __len__(self) -> int:
        """Number of preferences."""
        with self._reading() as connection:
            return int(connection.scalar(select(func.count()).select_from(_TABLE)) or 0)

    def export_jsonl(self, path: str | Path) -> int:
        """Writes all preferences to a file and returns their number."""
        return write_jsonl(path, (preference.to_json() for preference in self.preferences()))

    def import_jsonl(self, path: str | Path) -> int:
        """Adds the preferences of a file, ours or chosen/rejected, and returns the new ones."""
        return self.add(load_preferences(path))

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add_chunk(self, connection: Connection, preferences: Sequence[Preference]) -> int:
        ids = {_key(preference)[0] for preference in preferences}
        query = select(_TABLE.c.record).where(_TABLE.c.comparison.in_(ids))
        known = {_key(p): p for p in map(_from_record, connection.scalars(query))}
        rows = []
        for preference in preferences:
            key = _key(preference)
            if key not in known:
                rows.append(_row(preference))
                known[key] = preference
            elif _judgement(known[key]) != _judgement(preference):
                raise DataError(_conflict(key, known[key], preference))
        if rows:
            insert = _INSERTS[self._engine.dialect.name](_TABLE).on_conflict_do_nothing()
            connection.execute(insert, rows)
        return len(rows)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._failures_named(), self._engine.connect() as connection:
            connection = connection.execution_options(immediate=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._failures_named(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            raise DataError(f"the preference store {self._name} failed: {reason}") from error


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Changing the journal of a new file takes a lock for which SQLite itself does not wait."""
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _prepare_sqlite(engine: Engine) -> None:
    """Makes several writers safe: write-ahead log, and locks taken at the start of a write.

    Two transactions that first read and then write would otherwise wait for each other.
    """

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_LOCK_SECONDS * 1000}")
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _key(preference: Preference) -> Key:
    comparison = preference.comparison
    return comparison.id or comparison.prompt.id, preference.annotator, preference.round


def _judgement(preference: Preference) -> tuple[object, ...]:
    comparison = preference.comparison
    return comparison.prompt.messages, comparison.a, comparison.b, preference.p_a


def _row(preference: Preference) -> dict[str, object]:
    comparison, annotator, number = _key(preference)
    return {
        "comparison": comparison,
        "annotator": annotator,
        "round": number,
        "kind": preference.kind,
        "source": preference.comparison.prompt.source,
        "record": json.dumps(preference.to_json(), ensure_ascii=False),
    }


def _from_record(record: str) -> Preference:
    return Preference.from_json(json.loads(record))


def _conflict(key: Key, known: Preference, new: Preference) -> str:
    comparison, annotator, number = key
    difference = (
        f"p_a {known.p_a:g} there, {new.p_a:g} now"
        if known.p_a != new.p_a
        else "the texts are not the same"
    )
    return (
        f"comparison {comparison!r} already has a judgement of {annotator!r} in round {number} "
        f"({difference}): give the new one another round, or the comparison an id of its own"
    )
