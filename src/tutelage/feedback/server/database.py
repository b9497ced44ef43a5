"""The annotation page's tables in an SQLite file, which several processes write at once.

    writing() ──BEGIN IMMEDIATE──> read, decide, write ──COMMIT, on disk──> acknowledged
    reading() ──BEGIN──> one snapshot, whatever is written meanwhile

What is decided in a writing transaction still holds when it is committed, because no other
process can write in between. A process may be killed anywhere: what was committed is there.
"""

import queue
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tutelage.errors import DataError

__all__ = ["Database"]

_SCHEMA = Path(__file__).with_name("schema.sql")
_LOCK_SECONDS = 60.0
_IDLE = 16
"""Connections kept for the next caller."""


class Database:
    """Transactions on one file; safe to be used by many threads.

    The file has to hold a `PreferenceStore` already, which prepares it for several writers.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file and creates the page's tables where they are missing.

        Raises:
            DataError: the file cannot be used.
        """
        self.path = path
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        with self._connection() as connection, self._failures_named():
            connection.executescript("BEGIN IMMEDIATE;" + _SCHEMA.read_text("utf-8") + "COMMIT;")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is alone in writing, committed at the end of the block.

        Raises:
            DataError: the database cannot be used; nothing of the block is kept.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A snapshot of the database."""
        with self._transaction("BEGIN") as connection:
            yield connection

    def close(self) -> None:
        """Closes all connections that are not in use."""
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection, self._failures_named():
            connection.execute(begin)
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._open()
        try:
            yield connection
        finally:
            if self._idle.qsize() < _IDLE and not connection.in_transaction:
                self._idle.put(connection)
            else:
                connection.close()

    def _open(self) -> sqlite3.Connection:
        with self._failures_named():
            connection = sqlite3.connect(
                self.path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.row_factory = sqlite3.Row
            # An acknowledged label is on the disk.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            return connection

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DataError(f"the database {self.path} failed: {error}") from error
