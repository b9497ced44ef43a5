"""Replies that a judge gave already, and what they cost: one SQLite file.

    answers    SHA-256 of everything a reply depends on ──> reply, time
    requests   under way, each with the most it may cost
    spent      tokens and money of all requests that are over
    secret     what the keys of the fences are made with

A reply is there from the moment it came, so a process that is killed and run again asks for no
reply that it had. A request that was under way then counts at the most it may have cost. Several
processes may share the file.
"""

import json
import os
import secrets
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tutelage.errors import JudgeError
from tutelage.judging.reply import ModelReply

__all__ = ["JudgeCache", "Known", "Spent"]

_LOCK_SECONDS = 60.0
"""How long a writer waits for another one."""
_NOW = "strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')"
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, reply TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tokens INTEGER NOT NULL, cost REAL NOT NULL);
CREATE TABLE IF NOT EXISTS spent (
    id INTEGER PRIMARY KEY CHECK (id = 1), tokens INTEGER NOT NULL, cost REAL NOT NULL);
INSERT OR IGNORE INTO spent VALUES (1, 0, 0.0);
CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 1), bytes BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Known:
    """A reply and when it came, in UTC and ISO 8601."""

    reply: ModelReply
    created: str


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of prompts and replies, and what they cost."""

    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.tokens + other.tokens, self.cost + other.cost)


class JudgeCache:
    """Replies by key, and the ledger of requests; in memory where no file is named."""

    def __init__(self, path: str | Path | None = None) -> None:
        """Opens the file, or begins one that only its owner can read.

        Raises:
            JudgeError: the file cannot be opened, or is no such cache.
        """
        self.path = None if path is None else Path(path)
        # The event loop's thread asks, and whoever made the judge.
        self._turn = threading.RLock()
        try:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._file = sqlite3.connect(
                self.path or ":memory:",
                timeout=_LOCK_SECONDS,
                check_same_thread=False,
                isolation_level=None,
            )
            self._use_write_ahead_log()
            self._file.execute("PRAGMA synchronous = NORMAL")
            with self._writing():
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._file.execute(statement)
                new = "INSERT OR IGNORE INTO secret VALUES (1, ?)"
                self._file.execute(new, (secrets.token_bytes(32),))
            self.secret = bytes(self._file.execute("SELECT bytes FROM secret").fetchone()[0])
            self._file.execute("SELECT key, reply, created FROM answers LIMIT 1")
        except (OSError, sqlite3.Error) as error:
            raise JudgeError(
                f"the judge's cache {self.path} cannot be used: {error}. Delete it, or name another"
            ) from error

    def find(self, key: str) -> Known | None:
        """The reply, where it is known."""
        with self._turn:
            query = "SELECT reply, created FROM answers WHERE key = ?"
            row = self._file.execute(query, (key,)).fetchone()
        return None if row is None else Known(ModelReply.from_json(json.loads(row[0])), row[1])

    def reserve(self, worst: Spent, limit: Spent) -> int | None:
        """Opens a request that may cost so much; None where the limit might then be exceeded."""
        with self._turn, self._writing():
            most = self._spent() + self._under_way() + worst
            # Sums of prices are a hair off; a request is no hair.
            if most.tokens > limit.tokens or most.cost > limit.cost * (1.0 + 1e-12):
                return None
            row = "INSERT INTO requests (tokens, cost) VALUES (?, ?)"
            return int(self._file.execute(row, (worst.tokens, worst.cost)).lastrowid or 0)

    def settle(
        self, request: int, spent: Spent, key: str = "", reply: ModelReply | None = None
    ) -> str:
        """Closes a request with what it cost, and keeps its reply; returns when that came."""
        with self._turn, self._writing():
            self._file.execute("DELETE FROM requests WHERE id = ?", (request,))
            add = "UPDATE spent SET tokens = tokens + ?, cost = cost + ?"
            self._file.execute(add, (spent.tokens, spent.cost))
            if reply is not None:
                text = json.dumps(reply.to_json(), ensure_ascii=False)
                new = f"INSERT OR REPLACE INTO answers VALUES (?, ?, {_NOW}) RETURNING created"
                return str(self._file.execute(new, (key, text)).fetchone()[0])
        return ""

    @property
    def spent(self) -> Spent:
        """By all who used the file; requests that nobody closed at the most they may cost."""
        with self._turn:
            return self._spent() + self._under_way()

    def __len__(self) -> int:
        """Number of replies."""
        with self._turn:
            return int(self._file.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _use_write_ahead_log(self) -> None:
        """Changing the journal of a new file takes a lock for which SQLite itself does not wait."""
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                self._file.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _spent(self) -> Spent:
        return Spent(*self._file.execute("SELECT tokens, cost FROM spent").fetchone())

    def _under_way(self) -> Spent:
        sums = "SELECT COALESCE(SUM(tokens), 0), COALESCE(SUM(cost), 0.0) FROM requests"
        return Spent(*self._file.execute(sums).fetchone())

    def _writing(self) -> "_Transaction":
        return _Transaction(self._file)


class _Transaction:
    """All or nothing, with the lock taken at the beginning: it reads before it writes."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self.file = file

    def __enter__(self) -> None:
        self._execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self.file.in_transaction:
            self._execute("COMMIT" if kind is None else "ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise _cannot_write(error) from error

    def _execute(self, statement: str) -> None:
        try:
            self.file.execute(statement)
        except sqlite3.Error as error:
            raise _cannot_write(error) from error


def _cannot_write(error: sqlite3.Error) -> JudgeError:
    # What was spent could no longer be told: nothing more is to be asked.
    return JudgeError(f"the judge's cache cannot be written: {error}")
