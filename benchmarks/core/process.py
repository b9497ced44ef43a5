"""A side as seen from the harness: a process that is told to prepare, check and run."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.core.row import NotAvailable, Side

__all__ = ["ROOT", "SideFailed", "SideProcess"]

ROOT = Path(__file__).resolve().parent.parent.parent


class SideFailed(Exception):
    """A side broke; the message is a line that may be stored."""

    def __init__(self, reason: str, log: str = "") -> None:
        """`log` is a traceback or the end of a log: it names this machine's folders."""
        super().__init__(reason)
        self.log = log


class SideProcess:
    """Runs one side's workload in its environment; use as a context manager."""

    def __init__(
        self,
        side: Side,
        python: Path,
        log: Path,
        *,
        threads: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the process, with these variables besides; nothing heavy is imported yet."""
        self.side = side
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.perf_counter()
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [str(python), "-m", "benchmarks.core.worker"],
                cwd=ROOT,
                env=_environment(threads) | dict(environment or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the process, by force where it does not go."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has gone already
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def number(self) -> int:
        """By which the system knows the process."""
        return self._process.pid

    def prepare(self) -> dict[str, str]:
        """Builds and warms up; returns versions. Raises NotAvailable."""
        answer = self._ask(
            {"do": "prepare", "workload": self.side.workload, "options": dict(self.side.options)}
        )
        return answer["versions"]

    def check(self) -> list[dict[str, Any]]:
        """The lines of the parity gate."""
        return self._ask({"do": "check"})

    def run(self, seconds: float = 0.0) -> dict[str, float]:
        """One turn: the timed call, again and again for so many seconds."""
        return self._ask({"do": "run", "seconds": seconds})

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            end = "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-20:])
            raise SideFailed(f"{self.side.name} {_ending(code)}", end)
        answer = json.loads(line)
        if "not_available" in answer:
            raise NotAvailable(answer["not_available"])
        if "error" in answer:
            error = answer["error"].rstrip()
            raise SideFailed(f"{self.side.name} failed: {error.splitlines()[-1]}", error)
        return answer["ok"]


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed: if nobody did that, the machine ran out of memory"
    return f"ended with exit code {code}"


def _environment(threads: int) -> dict[str, str]:
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # As in the processes of Tutelage's stages, and for the peers alike.
        "THP_MEM_ALLOC_ENABLE": os.environ.get("THP_MEM_ALLOC_ENABLE", "1"),
    }
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
