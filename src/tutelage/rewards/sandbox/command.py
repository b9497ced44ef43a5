"""The command that starts a program in namespaces of its own: bubblewrap around an interpreter.

    bwrap (user, pid, net, mount, ipc, uts, cgroup namespaces; no capability; dies with us)
      └─ python -c inside/start.py      limits, seccomp, then the program's file

What is mounted, all of it read-only: the C library's folders, the interpreter, its standard
library without installed packages, `/dev/null`, `/dev/zero` and `/dev/urandom`. `/tmp` is a tmpfs
of limited size, with the program's files. There is no `/proc`, `/sys`, `/etc`, `/home` or shell.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tutelage.rewards.sandbox.limits import Limits
from tutelage.rewards.sandbox.result import SandboxUnavailable

__all__ = [
    "NOBODY",
    "Descriptors",
    "Interpreter",
    "describe_interpreter",
    "find_bubblewrap",
    "inside",
    "sandbox_command",
    "unprivileged",
]

NOBODY = 65534
"""Debian's `nobody`, as whom root starts sandboxes: root's own processes have no limit."""

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_NAMESPACES = ("user", "pid", "net", "ipc", "uts", "cgroup")
_ASK = (
    "import json, sys, sysconfig as s; print(json.dumps([sys.version_info[:2], "
    "[s.get_path('stdlib'), s.get_path('platstdlib')], "
    "s.get_config_var('LIBDIR') if s.get_config_var('Py_ENABLE_SHARED') else None]))"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python as the sandbox sees it."""

    executable: str
    folders: tuple[str, ...]
    """Its standard library and, where it has one, the folder of libpython."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Open files that bubblewrap and `inside/start.py` inherit."""

    started: int
    """Where `start.py` writes one byte before the program's first line."""
    info: int
    """Where bubblewrap writes the process id of the sandbox."""
    seccomp: int
    """The filter's instructions; -1 for none."""
    files: tuple[tuple[str, int], ...]
    """(name in `/tmp`, content)."""
    shared: tuple[int, ...] = ()
    """What the program itself is given."""


def unprivileged() -> dict[str, Any]:
    """Arguments of `subprocess.Popen` with which root starts programs as nobody."""
    if os.geteuid():
        return {}
    return {"user": NOBODY, "group": NOBODY, "extra_groups": ()}


def find_bubblewrap() -> str:
    """Where the program is.

    Raises:
        SandboxUnavailable: it is not installed.
    """
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxUnavailable(
            "bubblewrap",
            "there is no bwrap on PATH",
            "Install it (Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install "
            "bubblewrap); it exists on Linux only.",
        )
    return found


@cache
def describe_interpreter(executable: str) -> Interpreter:
    """Asks a Python where it keeps its standard library, as the user who will run it.

    Raises:
        SandboxUnavailable: it cannot be started by that user, or is older than 3.11.
    """
    try:
        done = subprocess.run(
            [executable, "-I", "-S", "-c", _ASK],
            capture_output=True,
            text=True,
            cwd="/",
            timeout=30,
            check=True,
            env={},
            **unprivileged(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxUnavailable(
            "interpreter",
            f"{executable} cannot be started by an unprivileged user: {error}",
            "Give one that every user can read, such as Sandbox(python='/usr/bin/python3').",
        ) from error
    version, folders, shared = json.loads(done.stdout)
    if version < [3, 11]:
        raise SandboxUnavailable(
            "interpreter", f"{executable} is Python {version}", "Give one of 3.11 or later."
        )
    wanted = dict.fromkeys([*folders, *([shared] if shared else [])])
    return Interpreter(os.path.realpath(executable), tuple(wanted))


@cache
def inside(name: str) -> str:
    """The source of a program of `inside/`."""
    return (files("tutelage.rewards.sandbox") / "inside" / name).read_text("utf-8")


def sandbox_command(
    bubblewrap: str,
    python: Interpreter,
    limits: Limits,
    descriptors: Descriptors,
    arguments: Sequence[str],
) -> list[str]:
    """The whole command line; `arguments` are the program's file in `/tmp` and what it is given."""
    command = [bubblewrap, "--die-with-parent", "--new-session", "--as-pid-1"]
    command += ["--cap-drop", "ALL"]
    command += [f"--unshare-{name}" for name in _NAMESPACES]
    command += ["--hostname", "sandbox", "--info-fd", str(descriptors.info)]
    command += _mounts(python)
    command += ["--size", str(limits.disk_bytes), "--tmpfs", "/tmp"]
    for name, descriptor in descriptors.files:
        command += ["--file", str(descriptor), f"/tmp/{name}"]
    command += ["--remount-ro", "/", "--chdir", "/tmp"]
    # One seed for hashes: the order of a set, and so a verdict, is the same in each run.
    command += ["--clearenv", "--setenv", "PYTHONHASHSEED", "0", "--"]
    command += [python.executable, "-B", "-s", "-P", "-S", "-X", "utf8", "-c", inside("start.py")]
    command += [str(descriptors.seccomp), str(descriptors.started)]
    return [*command, *_kernel_limits(limits), "--", *arguments]


def _mounts(python: Interpreter) -> list[str]:
    mounts = ["--dir", "/dev"]
    for folder in _LIBRARIES:
        if os.path.islink(folder):
            mounts += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            mounts += ["--ro-bind", folder, folder]
    mounts += ["--ro-bind", python.executable, python.executable]
    for folder in python.folders:
        if not folder.startswith(_LIBRARIES):
            mounts += ["--ro-bind", folder, folder]
        for name in ("site-packages", "dist-packages"):
            if (Path(folder) / name).is_dir():
                hidden = f"{folder}/{name}"
                mounts += ["--size", "4096", "--tmpfs", hidden, "--remount-ro", hidden]
    for device in _DEVICES:
        mounts += ["--dev-bind", device, device]
    return mounts


def _kernel_limits(limits: Limits) -> list[str]:
    return [
        f"RLIMIT_AS={limits.memory_bytes}",
        f"RLIMIT_FSIZE={limits.disk_bytes}",
        f"RLIMIT_NOFILE={limits.open_files}",
        f"RLIMIT_NPROC={limits.processes}",
        f"RLIMIT_CPU={limits.cpu_s}",
        "RLIMIT_CORE=0",
    ]
