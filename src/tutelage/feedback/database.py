"""The database below a store: a table of events that refuses changes, and one writer at a time.

SQLite takes its lock at the start of a write; PostgreSQL takes an advisory lock for the length of
the transaction. What a transaction has read therefore still holds when it writes.
"""

import sqlite3
import time
from pathlib import Path
from typing import Any

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
    inspect,
    make_url,
)
from sqlalchemy.exc import SQLAlchemyError

from tutelage.errors import DataError, MissingExtraError

__all__ = [
    "EVENTS",
    "begin_writing",
    "create_tables",
    "has_earlier_table",
    "has_tables",
    "open_engine",
]

_LOCK_SECONDS = 60
"""How long a writer waits for another one."""
_LOCK = 7_448_110_254
"""Of PostgreSQL's advisory locks, the one of every writer to a store; any number would do."""

_METADATA = MetaData()
EVENTS = Table(
    "feedback",
    _METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("comparison", String, nullable=False),
    Column("annotator", String, nullable=False),
    Column("round", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("action", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("source", String, nullable=False),
    Column("content", String, nullable=False, index=True),
    Column("created", String, nullable=False),
    Column("note", Text, nullable=False),
    Column("record", Text, nullable=True),
    UniqueConstraint("comparison", "annotator", "round", "version"),
    sqlite_autoincrement=True,
)
"""One row for each event; where it is a judgement, `record` is the preference as JSON and `content`
says which comparison it is, whatever its id (`comparison_key`)."""

_REFUSED = "feedback is never changed: add an event that takes the place of this one"
_SQLITE_TRIGGER = f"""
CREATE TRIGGER feedback_no_{{verb}} BEFORE {{verb}} ON feedback
BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END
"""
_POSTGRESQL_FUNCTION = f"""
CREATE OR REPLACE FUNCTION feedback_is_never_changed() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN RAISE EXCEPTION '{_REFUSED}'; END $$
"""
_POSTGRESQL_TRIGGER = """
CREATE TRIGGER feedback_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON feedback
FOR EACH STATEMENT EXECUTE FUNCTION feedback_is_never_changed()
"""
_ONE_ROW_PER_JUDGEMENT = "preferences"


def open_engine(location: str | Path, *, create: bool) -> Engine:
    """The database at a file or URL, ready for several writers.

    Raises:
        DataError: no such place, or a database that is neither SQLite nor PostgreSQL.
        MissingExtraError: PostgreSQL's driver is not installed.
    """
    text = str(location)
    if "://" not in text:
        if not create and not Path(text).is_file():
            raise DataError(f"there is no preference store at {text}: check the path")
        text = f"sqlite:///{text}"
    try:
        url = make_url(text)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise DataError(
                f"cannot use a preference store at {location}: expected a file for SQLite, or a "
                "URL postgresql://..."
            )
        if url.get_backend_name() == "sqlite" and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url)
    except ModuleNotFoundError as error:
        raise MissingExtraError("psycopg", "postgresql") from error
    except (SQLAlchemyError, OSError) as error:
        raise DataError(f"cannot use a preference store at {location}: {error}") from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    return engine


def begin_writing(connection: Connection) -> None:
    """Waits until nobody else writes, where the start of the transaction has not done so."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def has_tables(connection: Connection) -> bool:
    """Whether the table is there, and with it what protects it."""
    return inspect(connection).has_table(EVENTS.name)


def has_earlier_table(connection: Connection) -> bool:
    """Whether there is a table with a row for each judgement, which `create_tables` takes over."""
    return inspect(connection).has_table(_ONE_ROW_PER_JUDGEMENT)


def create_tables(connection: Connection) -> list[str]:
    """Makes the table and what protects it, where they are missing.

    Returns the records of a store that has one row for each judgement, to be taken over.
    """
    if has_tables(connection):
        return []
    _METADATA.create_all(connection)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_POSTGRESQL_FUNCTION)
        connection.exec_driver_sql(_POSTGRESQL_TRIGGER)
    else:
        for verb in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(_SQLITE_TRIGGER.format(verb=verb))
    if not has_earlier_table(connection):
        return []
    query = f"SELECT record FROM {_ONE_ROW_PER_JUDGEMENT} ORDER BY sequence"
    return [row[0] for row in connection.exec_driver_sql(query)]


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
