"""The audit trail: who did what and when, in a table that only grows."""

import sqlite3

from tutelage.feedback.server import clock

__all__ = ["note", "trail"]


def note(db: sqlite3.Connection, person: str, action: str, detail: str) -> None:
    """Adds a line in the transaction of what it tells about: both are kept or neither."""
    row = (clock.now(), person, action, detail)
    db.execute("INSERT INTO page_audit (at, person, action, detail) VALUES (?, ?, ?, ?)", row)


def trail(db: sqlite3.Connection, most: int = 500) -> list[sqlite3.Row]:
    """The latest lines, newest first."""
    return db.execute(
        "SELECT at, person, action, detail FROM page_audit ORDER BY sequence DESC LIMIT ?", (most,)
    ).fetchall()
