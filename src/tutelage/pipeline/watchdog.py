"""Finds stages that make no progress any more, and shows what they are doing.

    events of the stages ──heard──> Watchdog ──tick──> silent for too long
                                                 └──> dump_stacks: SIGUSR1 ──> logs/<stage>.txt

It watches from the supervising process: a stage that is stuck inside a library may not get to
run Python of its own. The stacks are written by faulthandler, which needs no interpreter either.
"""

import faulthandler
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Watchdog", "dump_stacks", "prepare_dump"]

_LONGEST_TICK = 5.0
"""Seconds that count at most between two ticks: while a terminal suspends the supervising
process it suspends the stages too."""
_DUMP = 3.0
"""Seconds that a process has to write its stacks."""


@dataclass
class _Heard:
    at: float
    step: int | None = None


class Watchdog:
    """Counts for how long each stage has been silent."""

    def __init__(self, limit: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Allows `limit` seconds of silence; 0 allows any."""
        self._limit = limit
        self._clock = clock
        self._last = clock()
        self._awake = 0.0
        """Seconds that have passed, without those in which everything was suspended."""
        self._stages: dict[str, _Heard] = {}

    def heard(self, stage: str, step: int | None = None) -> None:
        """The stage has begun or reported something, its step where it said so."""
        before = self._stages.get(stage, _Heard(0.0))
        self._stages[stage] = _Heard(self._now(), before.step if step is None else step)

    def forget(self, stage: str) -> None:
        """The stage has ended."""
        self._stages.pop(stage, None)

    def tick(self) -> list[str]:
        """The stages that have been silent for too long; to be called every second or so."""
        now = self._now()
        silent = [name for name, heard in self._stages.items() if now - heard.at >= self._limit]
        return silent if self._limit else []

    def _now(self) -> float:
        now = self._clock()
        self._awake += min(now - self._last, _LONGEST_TICK)
        self._last = now
        return self._awake

    def last_report(self, stage: str) -> str:
        """Where the stage was when it was last heard of."""
        step = self._stages[stage].step
        return "it has not reported any step" if step is None else f"it last reported step {step}"


def prepare_dump() -> None:
    """Lets SIGUSR1 write the stacks of all threads of this process to standard error."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def dump_stacks(pid: int, log: Path) -> bool:
    """Has a process write the stacks of all its threads to its log; returns whether it did."""
    before = _size(log)
    try:
        os.kill(pid, signal.SIGUSR1)
    except ProcessLookupError:
        return False
    deadline = time.monotonic() + _DUMP
    while time.monotonic() < deadline:
        size = _size(log)
        time.sleep(0.1)
        if before < size == _size(log):
            return True
    return False


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
