import errno
import json
import math
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tutelage.errors import CheckpointError
from tutelage.tracking.atomic import (
    null_non_finite,
    storage_error,
    write_bytes_atomically,
    write_json_atomically,
    write_text_atomically,
)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses files beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_text_is_written_as_utf8_and_replaces_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text_atomically(path, "one")
    write_text_atomically(path, "zwei €")
    assert path.read_bytes() == b"zwei \xe2\x82\xac"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_file_has_the_permissions_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "ordinary").touch()
    write_text_atomically(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_json_stays_valid_when_numbers_are_not_finite(tmp_path):
    path = tmp_path / "a.json"
    write_json_atomically(path, {"a": math.nan, "b": [1.5, -math.inf], "c": ("é", None, True)})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    loaded = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert loaded == {"a": None, "b": [1.5, None], "c": ["é", None, True]}


def test_null_non_finite_leaves_everything_else_alone():
    value = {"a": [0.0, -0.0, 1e308, 7, "nan"], "b": {"c": None}}
    assert null_non_finite(value) == value


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes_atomically(path, b"old")
    with largest_file(1000), pytest.raises(CheckpointError, match="Free some space"):
        write_bytes_atomically(path, b"x" * 5000)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]
    write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_failing_rename_leaves_no_temporary_file(tmp_path):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"cannot write .*folder"):
        write_text_atomically(tmp_path / "folder", "x")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that even root cannot write to")
def test_a_forbidden_folder_is_said_to_be_forbidden():
    with pytest.raises(CheckpointError, match="Make the folder writable"):
        write_text_atomically(Path("/sys/tutelage.txt"), "x")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent/a\.txt: No such file"):
        write_text_atomically(tmp_path / "absent" / "a.txt", "x")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EROFS, "Make the folder writable"),
        (errno.EACCES, "Make the folder writable"),
        (errno.EIO, "Check the folder"),
    ],
)
def test_the_message_says_what_happened_and_what_to_do(number, advice):
    message = str(storage_error(Path("runs/x"), OSError(number, os.strerror(number))))
    assert message.startswith(f"cannot write runs/x: {os.strerror(number)}. {advice}")
