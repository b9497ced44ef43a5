"""Compiles the C++ of this package for the processor at hand, once, and loads it.

    sources, compiler and processor ──digest──> ~/.cache/tutelage/native/<digest>.so

Without a compiler, or with `TUTELAGE_NATIVE=0`, there is no library, and torch's own operations do
the work. `CXX` names a compiler; without it the first of c++, g++ and clang++ is taken.
"""

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

__all__ = ["compiled", "library", "version"]

_log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math")
_PROCESSOR = ("-march=native", "-mcpu=native")
"""The processor at hand, as most compilers call it, and as some do on ARM."""
_THREADS = "-fopenmp"
"""Apple's compiler has none: its library then computes with one thread."""
_SECONDS = 120
"""Longest compilation; it takes four seconds."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None where it is switched off or cannot be made, of which a log tells.

    Other processes may compile it at the same time: each writes a file of its own and renames it.
    """
    if os.environ.get("TUTELAGE_NATIVE", "1") == "0":
        return None
    command = _compiler()
    if command is None:
        _log.info("no C++ compiler found: computing with torch's own operations, which are slower")
        return None
    try:
        return compiled(command, _kept())
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        _log.warning(
            "%s could not compile %s, or the result not be loaded (%s): computing with torch's own "
            "operations, which are slower; TUTELAGE_NATIVE=0 spares the attempt",
            command[0],
            _FOLDER,
            next(iter(said.strip().splitlines()), "no message"),
        )
        return None


def version() -> str:
    """Tells this library from those of other sources, compilers and processors; "none" without."""
    found = library()
    return "none" if found is None else Path(found._name).stem


def compiled(command: Sequence[str], kept: Path | None) -> ctypes.CDLL:
    """The library as this compiler makes it, from the folder or new.

    Args:
        command: compiler and options of the user's.
        kept: folder of libraries; None compiles each time and leaves nothing.

    Raises:
        OSError: the compiler cannot be run, or its result not loaded.
        subprocess.SubprocessError: it fails, or takes too long.
    """
    command, digest = _for_this_processor(command)
    name = f"{digest}.so"
    with tempfile.TemporaryDirectory(dir=kept, prefix=".compiling-") as folder:
        if kept is None:
            return ctypes.CDLL(str(_compile(command, Path(folder, name))))
        found = kept / name
        if _own(found):
            return ctypes.CDLL(str(found))
        made = _compile(command, Path(folder, name))
        loaded = ctypes.CDLL(str(made))
        os.replace(made, found)
        return loaded


def _compiler() -> list[str] | None:
    chosen = shlex.split(os.environ.get("CXX", ""))
    if chosen:
        return chosen
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    return None if found is None else [found]


def _kept() -> Path | None:
    """A folder that nobody else writes to; None where there cannot be one."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "tutelage" / "native"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if _own(folder) and os.access(folder, os.W_OK) else None


def _own(path: Path) -> bool:
    """Whether it is there, is this user's, and nobody else may write to it: it will be run."""
    try:
        found = path.stat()
    except OSError:
        return False
    alone = not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return alone and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def _for_this_processor(command: Sequence[str]) -> tuple[list[str], str]:
    """The command with all that it needs but files, and a digest of what its result depends on.

    What stands for the processor at hand is in the compiler's macros.
    """
    refused: subprocess.CalledProcessError | None = None
    for processor in _PROCESSOR:
        whole = [*command, *_FLAGS, processor]
        try:
            macros = _run([*whole, "-dM", "-E", "-x", "c++", os.devnull]).stdout
        except subprocess.CalledProcessError as error:
            refused = refused or error
            continue
        parts = (*(each.read_text("utf-8") for each in _sources("*")), macros, shlex.join(whole))
        return whole, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    assert refused is not None, "there is an option to try"
    raise refused


def _sources(ending: str) -> list[Path]:
    """Files of C++: with their headers for "*", what is compiled for "cpp"."""
    return sorted(path for path in _FOLDER.glob(f"*.{ending}") if path.suffix in (".cpp", ".h"))


def _compile(command: Sequence[str], to: Path) -> Path:
    asked = [*command, "-shared", "-fPIC", "-o", str(to), *map(str, _sources("cpp"))]
    try:
        _run([*asked, _THREADS])
    except subprocess.CalledProcessError:
        _run(asked)
    to.chmod(0o600)
    return to


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=_SECONDS,
    )
