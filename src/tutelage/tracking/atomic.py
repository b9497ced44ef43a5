"""Writes a file so that a reader sees the old content or the new, never half of it.

    bytes ──> .name.<random>.tmp ──fsync──> rename to name ──> fsync of the folder

POSIX `rename` replaces in one step; the two fsyncs order it after the data, so that
a power cut leaves one of the two versions.
"""

import errno
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutelage.errors import CheckpointError

__all__ = [
    "fsync_folder",
    "fsync_tree",
    "null_non_finite",
    "storage_error",
    "storage_errors",
    "write_bytes_atomically",
    "write_json_atomically",
    "write_text_atomically",
]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Replaces the file at `path` by `data` in one step.

    Raises:
        CheckpointError: the disk is full, read-only or forbidden. The old file is
            untouched and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error


def write_text_atomically(path: Path, text: str) -> None:
    """`write_bytes_atomically` for UTF-8 text."""
    write_bytes_atomically(path, text.encode("utf-8"))


def write_json_atomically(path: Path, value: Any) -> None:
    """`write_bytes_atomically` for indented JSON; numbers that are not finite become null."""
    text = json.dumps(null_non_finite(value), ensure_ascii=False, allow_nan=False, indent=2)
    write_text_atomically(path, text + "\n")


def null_non_finite(value: Any) -> Any:
    """The same JSON value with None for NaN and infinities, which JSON cannot write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: null_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [null_non_finite(item) for item in value]
    return value


def fsync_folder(folder: Path) -> None:
    """Makes the renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Makes `folder` with all that is in it survive a power cut."""
    for path in [*folder.rglob("*"), folder]:
        # A folder and a file are flushed alike: through a descriptor opened for reading.
        fsync_folder(path)


def storage_error(path: Path, error: OSError) -> CheckpointError:
    """The message a person needs when `path` could not be written."""
    if error.errno in _FULL:
        advice = "free some space and run again; finished stages are kept"
    elif error.errno in _FORBIDDEN:
        advice = "make the folder writable or choose another run folder"
    else:
        advice = "check the folder and run again; finished stages are kept"
    return CheckpointError(f"cannot write {path}: {error.strerror or error}. {advice.capitalize()}")


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns what the operating system refuses within the block into `storage_error`."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error
