"""Reading and writing JSON Lines: what is a fault, where it is, and what a reader may see."""

import gzip
import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from tutelage.data.jsonl import MAX_LINE_BYTES, Fault, read_jsonl, scan_jsonl, write_jsonl
from tutelage.errors import CheckpointError, DataError

ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "plain"},
    {"id": "b", "text": "ünïcødé 🙂 \u2028 \t\n", "score": -1.5e-3, "none": None},
]


def faults_of(path: Path) -> list[Fault]:
    return [item for item in scan_jsonl(path) if isinstance(item, Fault)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_what_is_written_is_read_back_with_line_numbers(tmp_path: Path, name: str) -> None:
    assert write_jsonl(tmp_path / name, ROWS) == 2
    assert list(read_jsonl(tmp_path / name)) == [(1, ROWS[0]), (2, ROWS[1])]


def test_the_same_rows_give_the_same_compressed_bytes(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "first.jsonl.gz", ROWS)
    write_jsonl(tmp_path / "second.jsonl.gz", ROWS)
    assert (tmp_path / "first.jsonl.gz").read_bytes() == (tmp_path / "second.jsonl.gz").read_bytes()


def test_writing_creates_the_folder_and_leaves_no_other_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "new" / "rows.jsonl", ROWS)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["rows.jsonl"]


def test_a_failed_write_leaves_the_old_file_and_no_part_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, ROWS)
    with pytest.raises(DataError, match=r"row 2 for .*rows\.jsonl is not JSON"):
        write_jsonl(path, [{"id": "c"}, {"score": float("nan")}])
    assert [row for _, row in read_jsonl(path)] == ROWS
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_lone_surrogate_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1"):
        write_jsonl(tmp_path / "rows.jsonl", [{"text": "\ud83d"}])


def test_a_folder_that_cannot_be_made_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write .*file/rows\.jsonl"):
        write_jsonl(tmp_path / "file" / "rows.jsonl", ROWS)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*rows\.jsonl"):
            write_jsonl(tmp_path / "rows.jsonl", ({"text": "x" * 1000} for _ in range(1000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


BROKEN_LINES = [
    ("byte order mark", b'\xef\xbb\xbf{"id": "a"}', "byte order mark"),
    ("UTF-16", '{"id": "a"}'.encode("utf-16"), "UTF-16"),
    ("gzip without its name", gzip.compress(b'{"id": "a"}', mtime=0), "ends in .gz"),
    ("Latin-1", '{"id": "é"}'.encode("latin-1"), "byte 0xe9 at position 9 is not UTF-8"),
    ("surrogate in raw bytes", b'{"id": "\xed\xa0\xbd"}', "is not UTF-8"),
    ("lone surrogate", b'{"id": "a", "text": ["x", "\\ud83d"]}', "lone surrogate"),
    ("lone low surrogate in a key", b'{"\\uDE00": "a"}', "lone surrogate"),
    ("raw control character", b'{"id": "a\x07"}', "control character U+0007 at column 10"),
    ("cut off", b'{"id": "a", ', "not JSON: Expecting"),
    ("cut off in a string", b'{"id": "a\n', "ends inside a string"),
    ("prose", b"Once upon a time", "not JSON"),
    ("blank line", b"  ", "blank line"),
    ("array", b'[{"id": "a"}]', "a JSON array; expected an object"),
    ("string", b'"id"', "a JSON string"),
    ("number", b"1", "a JSON number"),
    ("null", b"null", "a JSON null"),
    ("repeated key", b'{"id": "a", "id": "b"}', "'id' occurs twice"),
    ("repeated inner key", b'{"id": {"x": 1, "y": 2, "x": 1}}', "'x' occurs twice"),
    ("NaN", b'{"id": "a", "score": NaN}', "NaN is not JSON"),
    ("infinity", b'{"score": -Infinity}', "-Infinity is not JSON"),
    ("overflow", b'{"score": 1e999}', "beyond double precision"),
    ("endless integer", b'{"score": ' + b"9" * 5000 + b"}", "not a usable number"),
    ("deep nesting", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ("two objects", b'{"id": "a"}{"id": "b"}', "not JSON: Extra data"),
]


@pytest.mark.parametrize(
    ("line", "reason"),
    [broken[1:] for broken in BROKEN_LINES],
    ids=[broken[0] for broken in BROKEN_LINES],
)
def test_a_broken_line_is_named_and_the_others_are_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id": "before"}\n' + line.rstrip(b"\n") + b'\n{"id": "after"}\n')
    faults = faults_of(path)
    assert [(fault.file, fault.line) for fault in faults] == [(str(path), 2)]
    assert reason in faults[0].reason
    assert [item for item in scan_jsonl(path) if not isinstance(item, Fault)] == [
        (1, {"id": "before"}),
        (3, {"id": "after"}),
    ]


def test_a_paired_surrogate_escape_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "\\ud83d\\ude00"}')
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == [(1, {"text": "😀"})]


def test_a_line_of_ten_megabytes_is_a_fault_and_the_next_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    long = json.dumps({"text": "x" * 10_000_000}).encode()
    longest_allowed = json.dumps({"text": ""}).encode()
    filler = b"y" * (MAX_LINE_BYTES - 2 - len(longest_allowed))
    allowed = longest_allowed.replace(b'""', b'"' + filler + b'"')
    assert len(allowed) + 1 == MAX_LINE_BYTES - 1
    path.write_bytes(long + b"\n" + allowed + b"\n" + b'{"id": "next"}\n')
    items = list(scan_jsonl(path))
    assert isinstance(items[0], Fault)
    assert str(items[0]).startswith(f"{path}:1: the line has 10 MB or more")
    assert [item[0] for item in items[1:] if not isinstance(item, Fault)] == [2, 3]


def test_a_truncated_gzip_is_named_after_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    # Random ids do not compress, so that half of the bytes hold about half of the rows.
    rows = [{"id": os.urandom(32).hex()} for _ in range(400)]
    write_jsonl(path, rows)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    items = list(scan_jsonl(path))
    fault = items[-1]
    assert isinstance(fault, Fault)
    assert "damaged or cut off" in fault.reason
    assert fault.line == len(items)
    assert [item[1] for item in items[:-1]] == rows[: len(items) - 1]


def test_a_gzip_with_a_wrong_checksum_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    write_jsonl(path, ROWS)
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 0xFF
    path.write_bytes(damaged)
    assert "damaged or cut off" in faults_of(path)[0].reason


def test_a_plain_file_named_gz_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_text('{"id": "a"}\n')
    assert "damaged or cut off" in faults_of(path)[0].reason


def test_missing_empty_and_folder_are_faults_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert str(faults_of(tmp_path / "none.jsonl")[0]).endswith(
        "none.jsonl: no such file; check the path"
    )
    assert str(faults_of(tmp_path)[0]).startswith(f"{tmp_path}: is a folder")
    assert str(faults_of(tmp_path / "empty.jsonl")[0]).startswith(
        f"{tmp_path / 'empty.jsonl'}:1: the file is empty"
    )


def test_read_jsonl_raises_the_first_fault(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a"}\n\n[]\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: blank line"):
        list(read_jsonl(path))
