"""Where preferences are kept: in a store, or in a file of rows."""

from pathlib import Path

__all__ = ["is_store"]

_SQLITE = b"SQLite format 3\x00"


def is_store(source: str | Path) -> bool:
    """Whether it is a database, by URL or as a file of SQLite."""
    if "://" in str(source):
        return True
    path = Path(source)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE
