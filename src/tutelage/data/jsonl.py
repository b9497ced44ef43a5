"""JSON Lines in and out, with every fault named by file and line.

    bytes ──> lines of bounded length ──> UTF-8 ──> JSON object ──> (line, row)
                 └── whatever is wrong on the way ──> Fault(file, line, reason)

Reading streams, so that memory does not grow with the file. Writing is atomic: a reader sees
the whole file or none. A name that ends in `.gz` is compressed, in bytes that depend on the
rows alone.
"""

import gzip
import io
import json
import math
import os
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tutelage.errors import DataError
from tutelage.tracking.atomic import fsync_folder, storage_error

__all__ = ["MAX_LINE_BYTES", "Fault", "read_jsonl", "scan_jsonl", "write_jsonl"]

MAX_LINE_BYTES = 10_000_000
"""A line of this many bytes or more is a fault, and is never held in memory whole."""

_JSON_TYPES = {list: "array", str: "string", bool: "boolean", type(None): "null"}
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a file; line 0 stands for the file as a whole."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        """`file:line: reason`, the form editors understand."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.reason}"


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, row) and raises `DataError` at the first fault."""
    for item in scan_jsonl(path):
        if isinstance(item, Fault):
            raise DataError(str(item))
        yield item


def scan_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]] | Fault]:
    """Yields (line number, row) or, in the place of a line that cannot be read, its fault.

    Faults: no such file, folder, empty file, damaged gzip stream, byte order mark, invalid
    UTF-8, lone surrogate, line of `MAX_LINE_BYTES`, blank line, no JSON, raw control character,
    no object, repeated key, NaN or Infinity, number beyond float64, nesting too deep.
    """
    name, number = str(path), 0
    if Path(path).is_dir():
        yield Fault(name, 0, "is a folder; expected a .jsonl or .jsonl.gz file")
        return
    try:
        with ExitStack() as stack:
            for number, raw in _lines(_open(Path(path), stack)):
                row = _parse(raw) if raw is not None else _TOO_LONG
                yield Fault(name, number, row) if isinstance(row, str) else (number, row)
    except FileNotFoundError:
        yield Fault(name, 0, "no such file; check the path")
        return
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = f"the gzip stream is damaged or cut off ({error}); fetch the file again"
        yield Fault(name, number + 1, reason)
        return
    except OSError as error:
        yield Fault(name, number + 1, f"cannot be read: {error.strerror or error}")
        return
    if number == 0:
        yield Fault(name, 1, "the file is empty; expected one JSON object per line")


_TOO_LONG = (
    f"the line has {MAX_LINE_BYTES / 1e6:.0f} MB or more; expected one record per line, "
    "far below that"
)


def _open(path: Path, stack: ExitStack) -> io.BufferedReader:
    if path.suffix == ".gz":
        # The outer buffer makes `readline` run in C: twice the speed of GzipFile's own.
        unzipped = stack.enter_context(gzip.GzipFile(path, "rb"))
        return stack.enter_context(io.BufferedReader(unzipped, 1 << 18))
    return stack.enter_context(path.open("rb"))


def _lines(stream: io.BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """Yields numbered lines; None in the place of one that is too long."""
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(raw) < MAX_LINE_BYTES:
            yield number, raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = stream.readline(1 << 20)
        yield number, None


class _RejectedError(ValueError):
    """A value that JSON readers often let pass and we do not."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _RejectedError(f"the key {twice!r} occurs twice in one object")
    return row


def _refuse_constant(literal: str) -> None:
    raise _RejectedError(f"{literal} is not JSON; expected a finite number or null")


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise _RejectedError(f"the number {literal[:40]} is beyond double precision")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_float=_finite
)


def _parse(raw: bytes) -> dict[str, Any] | str:
    """The row, or the reason why there is none."""
    if raw.startswith(b"\xef\xbb\xbf"):
        return "starts with a byte order mark (BOM); save the file as UTF-8 without one"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _encoding_reason(raw, error)
    if not text.strip():
        return "blank line; expected a JSON object"
    try:
        row = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return _syntax_reason(text, error)
    except _RejectedError as error:
        return str(error)
    except RecursionError:
        return "nested too deeply to be a record"
    except ValueError as error:
        return f"not a usable number: {error}"
    if not isinstance(row, dict):
        found = _JSON_TYPES.get(type(row), "number")
        return f"a JSON {found}; expected an object in braces"
    if _SURROGATE_ESCAPE.search(text) and _has_lone_surrogate(row):
        return "a lone surrogate (half of a \\ud83d\\ude00 pair) is no character; remove it"
    return row


def _encoding_reason(raw: bytes, error: UnicodeDecodeError) -> str:
    if raw.startswith(b"\x1f\x8b"):
        return "compressed with gzip; expected a name that ends in .gz"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16; expected UTF-8"
    return f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8"


def _syntax_reason(text: str, error: json.JSONDecodeError) -> str:
    if error.msg.startswith("Invalid control character"):
        code = ord(text[error.pos])
        if code == ord("\n"):
            return "the line ends inside a string: cut off, or a line break not written as \\n"
        return f"control character U+{code:04X} at column {error.pos + 1}; remove or escape it"
    return f"not JSON: {error.msg} at column {error.pos + 1}"


def _has_lone_surrogate(row: dict[str, Any]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes rows to a file that appears whole or not at all, and returns their number.

    The folder is created when missing. The same rows give the same bytes.

    Raises:
        DataError: a value JSON cannot hold (NaN, lone surrogate).
        CheckpointError: the disk is full, read-only or forbidden.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            number = _write(file, target, rows)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise storage_error(target, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return number


def _write(file: IO[bytes], target: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    number = 0
    with ExitStack() as stack:
        write = file.write
        if target.suffix == ".gz":
            # Neither name nor time in the header: equal rows give equal bytes.
            unnamed = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
            write = stack.enter_context(unnamed).write
        for number, row in enumerate(rows, 1):
            try:
                write((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode())
            except ValueError as error:
                raise DataError(f"row {number} for {target} is not JSON: {error}") from error
    return number
