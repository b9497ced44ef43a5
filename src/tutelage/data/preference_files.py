"""Preferences out of files of every kind, and into them.

    .jsonl, .jsonl.gz ─────────────┐
    .parquet, a folder of them ────┤──as_preference──check_rows──> (row number, Preference)
    saved data set, org/name ──────┘

The kind is told by the name: a folder holds Parquet files or a saved data set, and what is no file
or folder and has the form `org/name` is asked for on a hub.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tutelage.data.checking import check_rows
from tutelage.data.columnar import (
    is_saved_dataset,
    scan_dataset,
    scan_parquet,
    write_dataset,
    write_parquet,
)
from tutelage.data.jsonl import Fault, scan_jsonl, write_jsonl
from tutelage.data.loaders import faultless
from tutelage.data.preference_forms import as_preference
from tutelage.data.schema import Schema
from tutelage.errors import DataError
from tutelage.records import Preference

__all__ = ["read_preferences", "write_preferences"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE = re.compile(r"\.(jsonl|parquet)(\.gz)?$")

Lines = Iterator[tuple[int, dict[str, Any]] | Fault]


def read_preferences(
    source: str | Path, *, split: str | None = None
) -> list[tuple[int, Preference]]:
    """The preferences of a file, folder or data set, each with its line or row.

    Args:
        source: where they are.
        split: which part of a data set that has several.

    Raises:
        DataError: names file, line and reason of up to five faults; a source with any gives none.
        MissingExtraError: Parquet or a data set without the extra `data`.
    """
    name = f"{source}[{split}]" if split else str(source)
    checked = check_rows(_rows(source, split), name, Schema.PREFERENCE)
    return [
        (item.line, Preference.from_json(item.row))
        for item in faultless(checked, name, (Schema.PREFERENCE,))
    ]


def write_preferences(path: str | Path, preferences: Iterable[Preference]) -> int:
    """Writes preferences to a file or folder that appears whole or not at all; says how many.

    `.jsonl`, `.jsonl.gz` and `.parquet` are files; any name without an ending is a folder for
    `datasets.load_from_disk`.

    Raises:
        DataError: another ending, or a folder that is there already.
    """
    rows = (preference.to_json() for preference in preferences)
    name = Path(path).name
    if name.endswith((".jsonl", ".jsonl.gz")):
        return write_jsonl(path, rows)
    if name.endswith(".parquet"):
        return write_parquet(path, rows)
    if not Path(path).suffix:
        return write_dataset(path, rows)
    raise DataError(
        f"{path}: expected a name that ends in .jsonl, .jsonl.gz or .parquet, or one without an "
        "ending for a data set's folder"
    )


def _rows(source: str | Path, split: str | None) -> Lines:
    for item in _scan(source, split):
        yield item if isinstance(item, Fault) else (item[0], as_preference(item[1]))


def _scan(source: str | Path, split: str | None) -> Lines:
    path = Path(source)
    if path.is_dir():
        if is_saved_dataset(path):
            return scan_dataset(str(path), split)
        return _folder(path)
    if path.suffix == ".parquet":
        return scan_parquet(path)
    if not path.exists() and _HUB_NAME.fullmatch(str(source)) and not _FILE.search(str(source)):
        return scan_dataset(str(source), split)
    return scan_jsonl(path)


def _folder(path: Path) -> Lines:
    files = sorted(path.rglob("*.parquet"))
    if not files:
        reason = "is a folder with neither Parquet files nor a saved data set"
        return iter([Fault(str(path), 0, reason)])
    counted = chain.from_iterable(map(scan_parquet, files))
    return _numbered(counted)


def _numbered(lines: Lines) -> Lines:
    """Rows of several files, counted on from one to the next."""
    for number, item in enumerate(lines, 1):
        yield item if isinstance(item, Fault) else (number, item[1])
