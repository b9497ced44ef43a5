"""The library is compiled once, by whatever compiler there is, and is not needed."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.native import compiling as module
from tutelage.native.compiling import compiled, library, version

COMPILER = shutil.which("c++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def _asked_anew():
    library.cache_clear()
    yield
    library.cache_clear()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user without a cache, whose compiler is the default one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("TUTELAGE_NATIVE", raising=False)
    return tmp_path / "tutelage" / "native"


def compiler_that(tmp_path: Path, script: str) -> str:
    """A program in the place of a compiler."""
    program = tmp_path / "compiler"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    return str(program)


@needs_compiler
def test_it_is_compiled_once_and_nothing_else_is_left(home, monkeypatch):
    assert library() is not None
    (kept,) = home.iterdir()
    assert version() == kept.stem
    assert kept.stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    library.cache_clear()
    monkeypatch.setattr(module, "_compile", lambda *_: pytest.fail("compiled again"))
    assert library() is not None


@needs_compiler
def test_another_source_or_compiler_is_another_library(home, tmp_path, monkeypatch):
    assert library() is not None
    sources = tmp_path / "others"
    sources.mkdir()
    (sources / "one.cpp").write_text('extern "C" void nothing() {}')
    monkeypatch.setattr(module, "_FOLDER", sources)
    library.cache_clear()
    assert library() is not None
    monkeypatch.setenv("CXX", f"{COMPILER} -DANOTHER")
    library.cache_clear()
    assert library() is not None
    assert len([*home.iterdir()]) == 3


@needs_compiler
def test_a_library_that_others_may_write_to_is_not_run(home):
    assert library() is not None
    (kept,) = home.iterdir()
    kept.write_bytes(b"not a library")
    kept.chmod(0o666)
    library.cache_clear()
    assert library() is not None
    assert kept.stat().st_mode & 0o777 == 0o600


@needs_compiler
def test_in_a_folder_that_others_may_write_to_nothing_is_kept(home):
    home.mkdir(parents=True)
    home.chmod(0o777)
    assert library() is not None
    assert not [*home.iterdir()]


@needs_compiler
def test_without_a_place_of_its_own_it_is_compiled_each_time(home, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert library() is not None


@needs_compiler
@pytest.mark.parametrize("refused", ["-fopenmp", "-march=native"])
def test_a_compiler_may_lack_an_option(home, tmp_path, monkeypatch, refused):
    """Apple's has no threads; some on ARM call the processor otherwise, as this one does."""
    refusing = f"""
for each; do
    [ "$each" = {refused} ] && exit 1
    shift
    [ "$each" = -mcpu=native ] || set -- "$@" "$each"
done
exec {COMPILER} "$@"
"""
    monkeypatch.setenv("CXX", compiler_that(tmp_path, refusing))
    assert library() is not None


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo first >&2; echo second >&2; exit 1", "first"),
        ("exit 1", "exit status 1"),
        (
            'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo rubbish > "$2"; shift; done',
            "file too short|invalid ELF",
        ),
    ],
)
def test_a_compiler_that_fails_leaves_the_work_to_torch(
    home, tmp_path, monkeypatch, caplog, script, said
):
    monkeypatch.setenv("CXX", compiler_that(tmp_path, script))
    with caplog.at_level(logging.WARNING):
        assert library() is None
    (record,) = caplog.records
    assert "torch's own operations" in record.getMessage()
    assert any(each in record.getMessage() for each in said.split("|"))
    assert not [*home.iterdir()]


def test_one_that_hangs_is_given_up(home, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_SECONDS", 0.2)
    monkeypatch.setenv("CXX", compiler_that(tmp_path, "exec sleep 60"))
    assert library() is None
    assert "timed out" in caplog.text


def test_a_compiler_that_is_not_there_is_named(home, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "/nowhere/c++ -O1")
    assert library() is None
    assert "/nowhere/c++" in caplog.text


def test_without_any_compiler_one_line_says_so(home, monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    with caplog.at_level(logging.INFO):
        assert library() is None
    assert "no C++ compiler" in caplog.text


def test_it_can_be_switched_off(home, monkeypatch, caplog):
    monkeypatch.setenv("TUTELAGE_NATIVE", "0")
    assert library() is None
    assert version() == "none"
    assert not caplog.records
    assert not home.exists()


@needs_compiler
def test_several_processes_may_compile_at_the_same_time(home):
    code = "from tutelage.native.compiling import library; assert library() is not None"
    running = [subprocess.Popen([sys.executable, "-c", code], env=os.environ) for _ in range(4)]
    assert [each.wait(120) for each in running] == [0] * 4
    (_,) = home.iterdir()


@needs_compiler
def test_one_that_is_kept_nowhere_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert compiled([COMPILER], None) is not None
    assert not [*tmp_path.iterdir()]
