"""The records of all runs, one file per row, the newest last. Nothing is ever taken out."""

import json
from pathlib import Path
from typing import Any

__all__ = ["append", "latest", "read"]


def append(folder: Path, record: dict[str, Any]) -> Path:
    """Adds a record to its row's file; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record['row']}.json"
    records = [*read(path), record]
    part = path.with_suffix(".part")
    part.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
    part.replace(path)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """All records of a row, oldest first."""
    records: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return records


def latest(folder: Path, row: str) -> dict[str, Any] | None:
    """The newest record that counts; where none does, the newest."""
    records = read(folder / f"{row}.json")
    good = [record for record in records if record["status"] == "ok"]
    return (good or records or [None])[-1]
