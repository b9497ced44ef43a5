"""Scores that are known already, on disk.

    SHA-256 of (service's version, prompt, completion) ──> score

One SQLite file: a process that is killed while it writes leaves the last whole batch, and several
processes may share it.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from tutelage.errors import RewardError

__all__ = ["ScoreCache"]

_SOUGHT_AT_ONCE = 500
"""Variables that every build of SQLite takes in one statement."""


class ScoreCache:
    """Finite scores by key; failures are not kept, they may not happen again."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or begins one.

        Raises:
            RewardError: the file cannot be opened, or is no cache.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The caller asks from one thread at a time, not always the same.
            self._file = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
            with self._file:
                self._file.execute(
                    "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, value REAL NOT NULL)"
                )
                self._file.execute("SELECT key, value FROM scores LIMIT 1")
        except (OSError, sqlite3.Error) as error:
            raise RewardError(
                f"the cache of scores {path} cannot be used: {error}. Delete it, or name another"
            ) from error

    def find(self, keys: Iterable[str]) -> dict[str, float]:
        """The scores of those keys that are known."""
        sought = list(dict.fromkeys(keys))
        found: dict[str, float] = {}
        for start in range(0, len(sought), _SOUGHT_AT_ONCE):
            part = sought[start : start + _SOUGHT_AT_ONCE]
            marks = ", ".join("?" * len(part))
            query = f"SELECT key, value FROM scores WHERE key IN ({marks})"
            found.update(self._file.execute(query, part).fetchall())
        return found

    def keep(self, scores: Mapping[str, float]) -> None:
        """Adds scores, all of them or none.

        Raises:
            sqlite3.Error: the disk is full or the file damaged.
        """
        with self._file:
            self._file.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", scores.items())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
