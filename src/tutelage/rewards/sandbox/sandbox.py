"""The sandbox itself: programs in, results out."""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from tutelage.errors import ConfigError
from tutelage.rewards.sandbox.command import Interpreter, describe_interpreter, find_bubblewrap
from tutelage.rewards.sandbox.execute import Job, Machine, execute
from tutelage.rewards.sandbox.limits import Limits
from tutelage.rewards.sandbox.probe import require_layers
from tutelage.rewards.sandbox.result import SandboxResult, SandboxUnavailable
from tutelage.rewards.sandbox.syscalls import compile_filter

__all__ = ["PROGRAM", "Sandbox"]

PROGRAM = "program.py"
"""The name under which a program finds itself in `/tmp`."""

_SYSTEM_PYTHON = "/usr/bin/python3"


class Sandbox:
    """Runs Python programs that nobody has read, each in a sandbox of its own.

    Safe to share between threads. docs/sandbox.md lists the layers and what each one stops.
    """

    def __init__(self, limits: Limits | None = None, *, python: str | None = None) -> None:
        """Shows first that each layer holds here, once per process.

        Args:
            limits: What one program may use.
            python: The interpreter of the programs. By default the one that runs us, or the
                system's where other users may not read ours, as under `/root`.

        Raises:
            SandboxUnavailable: a layer is missing; the message names it. Nothing runs without.
        """
        self.limits = limits or Limits()
        bubblewrap = find_bubblewrap()
        self._machine = Machine(bubblewrap, _interpreter(python), compile_filter())
        require_layers(self._machine)

    @property
    def python(self) -> str:
        """The interpreter that runs the programs."""
        return self._machine.python.executable

    def run(
        self, program: str, stdin: str = "", files: Mapping[str, str] | None = None
    ) -> SandboxResult:
        """Runs one program.

        Args:
            program: Python source, run as `__main__` in `/tmp`.
            stdin: What it reads from standard input.
            files: Texts it finds in `/tmp`, by relative name; it may change its copies.
        """
        for name in files or {}:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\0" in name or not path.name:
                raise ConfigError(f"file name {name!r} is not a relative path inside the sandbox")
        return self.execute(Job({**(files or {}), PROGRAM: program}, [PROGRAM], stdin))

    def run_many(self, programs: Sequence[str], concurrency: int = 16) -> list[SandboxResult]:
        """Runs programs side by side; results come in the order of the programs."""
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}, expected at least 1")
        with ThreadPoolExecutor(concurrency, "sandbox") as threads:
            return list(threads.map(self.run, programs))

    def execute(self, job: Job) -> SandboxResult:
        """Runs a job whose files and descriptors the caller has prepared."""
        return execute(self._machine, self.limits, job)


def _interpreter(python: str | None) -> Interpreter:
    if python is not None:
        return describe_interpreter(python)
    ours = str(getattr(sys, "_base_executable", sys.executable))
    try:
        return describe_interpreter(ours)
    except SandboxUnavailable as ours_fails:
        try:
            return describe_interpreter(_SYSTEM_PYTHON)
        except SandboxUnavailable:
            raise ours_fails from None
