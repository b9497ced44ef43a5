"""A reward function in a process of its own, so that whatever it does can be ended.

    caller ──prompt, completion──> process ──function──> Score ──> caller
       └── no answer at the deadline: SIGKILL to its group; the next item finds a new process

No limit inside an interpreter stops a loop in native code; ending the process does.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from tutelage.errors import ConfigError
from tutelage.records import Completion, Prompt, Score, ScoreStatus

__all__ = ["FunctionProcess"]

_START_SECONDS = 300.0
"""For the imports of the user's file, on a machine that has much else to do."""
_BOOT = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from tutelage.data.function_call import serve_function
serve_function(int(sys.argv[2]))
"""


class _Child:
    """One process, from its start to its end."""

    def __init__(self, path: str, arguments: Mapping[str, Any], forbidden: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        watched, self._alive = os.pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(sys.path), str(watched)],
                stdin=theirs.fileno(),
                pass_fds=(watched,),
                start_new_session=True,
            )
        os.close(watched)
        self.connection, self._buffer = ours, b""
        setup = {
            "path": path,
            "what": "reward function",
            "arguments": dict(arguments),
            "forbidden": list(forbidden),
        }
        try:
            answer = self.ask(setup, _START_SECONDS)
        except (EOFError, TimeoutError) as error:
            self.end()
            raise ConfigError(f"reward function {path!r}: {error} while it was loaded") from error
        if "refused" in answer:
            self.end()
            raise ConfigError(answer["refused"])

    def ask(self, row: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Sends a line and waits for one.

        Raises:
            TimeoutError: none came in time.
            EOFError: the process has ended.
        """
        until = time.monotonic() + seconds
        try:
            self.connection.settimeout(seconds)
            self.connection.sendall(json.dumps(row).encode() + b"\n")
            while b"\n" not in self._buffer:
                self.connection.settimeout(max(1e-3, until - time.monotonic()))
                received = self.connection.recv(1 << 16)
                if not received:
                    raise EOFError
                self._buffer += received
        except TimeoutError:
            raise TimeoutError(f"no answer in {seconds:g} s") from None
        except (ConnectionError, EOFError):
            raise EOFError(f"its process ended {_how(self.end())}") from None
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> int:
        """Kills the process and all that it has started; returns its exit code."""
        if self.connection.fileno() >= 0:
            self.connection.close()
            if self.process.returncode is None:
                # A process that is ending by itself is given the moment to say how.
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.1)
            _kill_group(self.process.pid)
            os.close(self._alive)
        return self.process.wait()


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _how(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


class FunctionProcess:
    """The Python function `file.py:name` of (prompt, completion), with deadlines.

    It returns a number, or None to abstain. What it keeps in memory lasts until it misses a
    deadline or its process ends; the next item then finds a fresh process. Random numbers that it
    draws follow from the caller's `random`: a run that is resumed draws the same.
    """

    def __init__(
        self,
        path: str,
        *,
        arguments: Mapping[str, Any] | None = None,
        item_seconds: float = 30.0,
        batch_seconds: float = 600.0,
        forbidden: Sequence[str] = (),
    ) -> None:
        """Starts the process.

        Args:
            path: file and name.
            arguments: by keyword, of every call; JSON values.
            item_seconds: for one completion.
            batch_seconds: for all completions of a call.
            forbidden: modules that the function may not import.

        Raises:
            ConfigError: the file or the name in it does not exist, or the file cannot be run.
        """
        self.path, self.name = path, path.rpartition(":")[2]
        self.item_seconds, self.batch_seconds = item_seconds, batch_seconds
        self.arguments, self.forbidden = dict(arguments or {}), tuple(forbidden)
        self._child: _Child | None = None
        self._start()

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """One score per completion; what misses its deadline fails, and the rest goes on."""
        until = time.monotonic() + self.batch_seconds
        # One seed for each, also for those that are not reached: no deadline changes the others'.
        seeds = [random.getrandbits(32) for _ in prompts]
        return [
            self._score(prompt, completion, seed, until)
            for prompt, completion, seed in zip(prompts, completions, seeds, strict=True)
        ]

    def _score(self, prompt: Prompt, completion: Completion, seed: int, until: float) -> Score:
        left = until - time.monotonic()
        if left <= 0:
            late = f"{self.name} had not come to it when the batch's {self.batch_seconds:g} s ended"
            return Score.failed(ScoreStatus.TIMEOUT, late)
        try:
            child = self._child or self._start()
            asked = {"prompt": prompt.to_json(), "completion": completion.to_json()}
            answer = child.ask({"seed": seed, **asked}, min(self.item_seconds, left))
        except TimeoutError as error:
            self.close()
            return Score.failed(ScoreStatus.TIMEOUT, f"{self.name}: {error}")
        except (EOFError, ConfigError) as error:
            self.close()
            return Score.failed(ScoreStatus.ERROR, f"{self.name}: {error}")
        status = ScoreStatus(answer["status"])
        if status is not ScoreStatus.OK:
            return Score.failed(status, answer["notes"])
        return Score(answer["value"])

    def _start(self) -> _Child:
        self._child = _Child(self.path, self.arguments, self.forbidden)
        self._finalizer = weakref.finalize(self, self._child.end)
        return self._child

    def close(self) -> None:
        """Ends the process; the next call would start another."""
        self._child = None
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
