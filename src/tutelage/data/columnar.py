"""Preferences as columns: Parquet files, and the folders and hub names of the `datasets` library.

    file.parquet ─────────────┐                        ┌──> file.parquet
    folder of Parquet files ──┤                        │
    saved data set ───────────┼──> (row number, row) ──┴──> saved data set
    org/name on a hub ────────┘

Columns have one type each, so what a record holds as an object stands in a form of its own:
`criteria` as a list of name and probability, what verifiers read (`check`) as JSON. Both are turned
back when they are read.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Any

from tutelage.data.jsonl import Fault
from tutelage.errors import DataError, MissingExtraError
from tutelage.records import CHECK_KEYS
from tutelage.tracking.atomic import fsync_folder, fsync_tree, storage_errors

__all__ = ["is_saved_dataset", "scan_dataset", "scan_parquet", "write_dataset", "write_parquet"]

_ROWS_AT_ONCE = 1000
_SAVED = ("dataset_info.json", "dataset_dict.json")

Row = dict[str, Any]


def scan_parquet(path: Path) -> Iterator[tuple[int, Row] | Fault]:
    """Yields the numbered rows of a file, from 1 on; a file that cannot be read is a `Fault`."""
    pyarrow, parquet = _pyarrow()
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _decoded(row)
    except (pyarrow.ArrowException, OSError) as error:
        yield Fault(str(path), number + 1, f"is no Parquet file that can be read: {error}")
        return
    if number == 0:
        yield Fault(str(path), 0, "the file has no rows")


def scan_dataset(name: str, split: str | None = None) -> Iterator[tuple[int, Row] | Fault]:
    """Yields the numbered rows of a saved data set, or of one on a hub.

    Args:
        name: a folder that `save_to_disk` has written, or a name like `org/name`.
        split: which part of it; not needed where there is only one.
    """
    datasets = _datasets()
    try:
        loaded = (
            datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name)
        )
    # The library raises errors of its own, of pyarrow, of the hub's client and of the network.
    except Exception as error:
        yield Fault(name, 0, f"cannot be loaded as a data set: {error}")
        return
    if isinstance(loaded, datasets.DatasetDict):
        if split is None and len(loaded) == 1:
            split = next(iter(loaded))
        if split not in loaded:
            found = "none was named" if split is None else f"there is no {split!r}"
            yield Fault(name, 0, f"has the splits {', '.join(loaded)}, and {found} (split)")
            return
        loaded = loaded[split]
    for number, row in enumerate(loaded, 1):
        yield number, _decoded(row)


def is_saved_dataset(path: Path) -> bool:
    """Whether `save_to_disk` has written the folder."""
    return any((path / name).is_file() for name in _SAVED)


def write_parquet(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes preference rows to a file that appears whole or not at all; returns their number."""
    pyarrow, parquet = _pyarrow()
    target, schema, count = Path(path), _schema(pyarrow), 0
    with _partial(target) as partial:
        with parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
            for table in _tables(pyarrow, schema, rows):
                writer.write_table(table)
                count += table.num_rows
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
    return count


def write_dataset(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes preference rows as a folder for `datasets.load_from_disk`; returns their number.

    Raises:
        DataError: there is something in the folder's place.
    """
    pyarrow, _ = _pyarrow()
    datasets = _datasets()
    target = Path(path)
    if target.exists():
        raise DataError(f"{target} is there already: name a folder that is not")
    schema = _schema(pyarrow)
    tables = list(_tables(pyarrow, schema, rows))
    table = pyarrow.concat_tables(tables) if tables else schema.empty_table()
    with _partial(target) as partial:
        datasets.Dataset(table).save_to_disk(partial)
        fsync_tree(partial)
    return table.num_rows


def _tables(pyarrow: Any, schema: Any, rows: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    remaining = map(_encoded, rows)
    while chunk := list(islice(remaining, _ROWS_AT_ONCE)):
        yield pyarrow.Table.from_pylist(chunk, schema=schema)


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A name beside the target that becomes the target where all goes well."""
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(target)
            fsync_folder(target.parent)
        finally:
            with suppress(OSError):
                rmtree(partial) if partial.is_dir() else partial.unlink()


def _encoded(row: Mapping[str, Any]) -> Row:
    encoded = {key: value for key, value in row.items() if key not in CHECK_KEYS}
    check = {key: row[key] for key in CHECK_KEYS if key in row}
    if check:
        encoded["check"] = json.dumps(check, ensure_ascii=False)
    if "criteria" in row:
        encoded["criteria"] = [
            {"name": name, "p_a": p_a} for name, p_a in sorted(row["criteria"].items())
        ]
    return encoded


def _decoded(row: Row) -> Row:
    """The row as JSON Lines would have it: nothing that is null, objects as objects."""
    decoded = {key: value for key, value in row.items() if value is not None}
    if isinstance(decoded.get("check"), str):
        with suppress(ValueError):
            decoded |= json.loads(decoded.pop("check"))
    criteria = decoded.get("criteria")
    if isinstance(criteria, list):
        decoded["criteria"] = {item["name"]: item["p_a"] for item in criteria}
    return decoded


def _schema(pyarrow: Any) -> Any:
    text, number = pyarrow.string(), pyarrow.float64()
    message = pyarrow.struct([("role", text), ("content", text)])
    criterion = pyarrow.struct([("name", text), ("p_a", number)])
    types = {
        **dict.fromkeys(("id", "prompt_id", "source", "category", "reference", "mode"), text),
        "prompt": pyarrow.list_(message),
        **dict.fromkeys(("a", "b", "annotator", "kind", "rationale", "created"), text),
        "round": pyarrow.int64(),
        **dict.fromkeys(("p_a", "seconds", "strength", "weight", "confidence"), number),
        "orders": pyarrow.list_(number),
        "criteria": pyarrow.list_(criterion),
        "instructions": text,
        "check": text,
    }
    return pyarrow.schema(list(types.items()))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error
    return pyarrow, parquet


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "data") from error
    datasets.disable_progress_bars()
    return datasets
