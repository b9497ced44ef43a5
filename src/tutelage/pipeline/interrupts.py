"""Ctrl-C, SIGTERM and the time limit, noticed at moments where nothing is half done.

The first signal is only noted; `check` raises it between two events of the run, when
children can be stopped and partial folders removed in order. A second Ctrl-C does not
wait for such a moment.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

__all__ = ["Interrupts", "Terminated", "TimeLimitReached"]


_KEPT = "what is finished or saved is kept; run the same command again to continue"
_MESSAGE = f"interrupted: {_KEPT}"


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated like Ctrl-C; the exit code is 143 instead of 130."""


class TimeLimitReached(KeyboardInterrupt):
    """The time that the user has given is over, treated like Ctrl-C; the exit code is 124."""


class Interrupts:
    """Context manager that notes SIGINT and SIGTERM while a run goes on.

    Only a process's main thread can do so; elsewhere the signals keep their handlers.
    """

    def __init__(
        self, limit: float | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Counts the time limit, in seconds, from now on by `clock`."""
        self._clock = clock
        self._end = None if limit is None else clock() + limit
        self._received: int | None = None
        self._before: dict[int, Any] = {}
        self._waits = False

    def __enter__(self) -> Self:
        """Takes the signals over."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises what was received.

        Raises:
            Terminated: SIGTERM.
            KeyboardInterrupt: Ctrl-C.
            TimeLimitReached: the time is over.
        """
        if self._received == signal.SIGTERM:
            raise Terminated(_MESSAGE)
        if self._received is not None:
            raise KeyboardInterrupt(_MESSAGE)
        if self._end is not None and self._clock() >= self._end:
            raise TimeLimitReached(f"time limit reached: {_KEPT}")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block, which only waits, a signal is raised where it arrives."""
        self._waits = True
        try:
            self.check()
            yield
        finally:
            self._waits = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self._received == signal.SIGINT == number
        self._received = number
        if again or self._waits:
            self.check()
