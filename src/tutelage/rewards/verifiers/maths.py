"""Mathematical equality by math-verify: 1/2 = 0.5, sets, intervals, expressions, LaTeX.

    verify ──line of JSON──> process of its own: parse, compare ──line──> verdict
        └── no line in time: SIGKILL, and the next answer finds a fresh process

The library's own time limit is an alarm signal, which works in a main thread only and does not
reach into one long multiplication. A process can always be ended. It may also hold no more memory
than `_MEMORY`: a power tower asks for all there is.
"""

import importlib.util
import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

from tutelage.errors import MissingExtraError, RewardError
from tutelage.records import Prompt, Score, ScoreStatus
from tutelage.rewards.verifiers import maths_process
from tutelage.rewards.verifiers.verifier import unscorable, verdict

__all__ = ["Maths"]

_START_SECONDS = 120.0
"""For the imports, on a machine that has much else to do."""
_LONGEST = 20_000
"""Characters of an answer that are read: its end, where the result stands."""


class Maths:
    """Right when the answer's last formula equals the reference."""

    at_once = 1

    def __init__(self, *, seconds: float = 1.0) -> None:
        """Args: how long one comparison may take.

        Raises:
            MissingExtraError: math-verify is not installed.
        """
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtraError("math-verify", "maths")
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def verify(self, prompt: Prompt, text: str) -> Score:
        """1 or 0; unscorable where the reference is no mathematics."""
        if not prompt.reference:
            return unscorable(prompt, "reference")
        with self._lock:
            answer = self._ask({"reference": prompt.reference, "text": text[-_LONGEST:]})
        if answer is None:
            return Score.failed(
                ScoreStatus.TIMEOUT, f"the comparison took more than {self.seconds:g} s"
            )
        if "error" in answer:
            return Score.failed(ScoreStatus.ERROR, str(answer["error"]))
        if not answer["readable"]:
            return unscorable(prompt, "reference that is mathematics")
        return verdict(bool(answer["equal"]))

    def _ask(self, row: dict[str, str]) -> dict[str, object] | None:
        """The process's answer; None if there was none in time, and the process is then ended."""
        if self._process is None or self._process.poll() is not None:
            self._process = _started()
            weakref.finalize(self, _end, self._process)
        process = self._process
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(row).encode() + b"\n")
            process.stdin.flush()
            line = _line(process, self.seconds)
        except BrokenPipeError:
            line = b""
        if line is None or not line.endswith(b"\n"):
            _end(process)
            self._process = None
            return None if line is None else {"error": "the process that compares has ended"}
        answer: dict[str, object] = json.loads(line)
        return answer


def _started() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        # -P: the modules beside the file must not be taken for the standard library's.
        [sys.executable, "-P", str(Path(maths_process.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    if not _line(process, _START_SECONDS):
        _end(process)
        raise RewardError(f"math-verify did not start within {_START_SECONDS:g} s")
    return process


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """What the process writes up to a line's end or its own; None if that takes too long."""
    assert process.stdout is not None
    until, received = time.monotonic() + seconds, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not received.endswith(b"\n"):
            if not selector.select(max(0.0, until - time.monotonic())):
                return None
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                break
            received += piece
    return received


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
