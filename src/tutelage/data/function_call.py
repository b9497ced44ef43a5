"""Calls a function of the user's, here or as the whole life of a process.

    {"seed", "prompt", "completion"} ──line of JSON──> function ──> Score ──line of JSON──>

The process is started by `tutelage.rewards.function_process`. It needs no torch, so that
it starts in a moment; the function may import what it likes.
"""

import json
import math
import numbers
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from tutelage.data.python_file import load_callable
from tutelage.errors import ConfigError
from tutelage.records import Completion, Prompt, Score, ScoreStatus

__all__ = ["call_function", "serve_function"]

_F_SETSIG = 10
"""Of Linux' fcntl.h: which signal O_ASYNC sends."""
_LONGEST_NOTE = 1000
"""Characters: what a function raises or returns may be as long as it likes."""


def call_function(
    function: Callable[[Prompt, Completion], Any], name: str, prompt: Prompt, completion: Completion
) -> Score:
    """What the function says, typed: a number, an abstention, or a failure with its reason."""
    try:
        value = function(prompt, completion)
        if value is None:
            return Score.failed(ScoreStatus.UNSCORABLE, f"{name} returned None")
        expected = f"{name} returned {value!r}, expected a finite number"[:_LONGEST_NOTE]
        if not isinstance(value, numbers.Real):
            return Score.failed(ScoreStatus.ERROR, expected)
        if not math.isfinite(value):
            return Score.failed(ScoreStatus.NOT_FINITE, expected)
        return Score(float(value))
    except (Exception, SystemExit) as error:
        return Score.failed(ScoreStatus.ERROR, f"{name} raised {error!r}"[:_LONGEST_NOTE])


def serve_function(alive: int) -> None:
    """Answers on the socket that is standard input until the caller closes it.

    Args:
        alive: descriptor of a pipe whose other end the caller holds, and nobody else.
    """
    with socket.socket(fileno=os.dup(0)) as connection, connection.makefile("rb") as requests:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        # A terminal sends Ctrl-C to every process; the caller alone decides what follows.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _die_with(alive)
        setup = json.loads(requests.readline())
        for module in setup["forbidden"]:
            # What import finds here instead of a module makes it raise.
            sys.modules[module] = None  # type: ignore[assignment]
        path = setup["path"]
        try:
            function = partial(load_callable(path, setup["what"]), **setup["arguments"])
        except ConfigError as error:
            _send(connection, {"refused": str(error)})
            return
        _send(connection, {"ready": True})
        name = path.rpartition(":")[2]
        for line in requests:
            row = json.loads(line)
            _seed(row["seed"])
            prompt, completion = Prompt.from_json(row["prompt"]), row["completion"]
            score = call_function(function, name, prompt, Completion.from_json(completion))
            answer = {"status": score.status.value, "notes": score.notes}
            _send(connection, answer | {"value": score.value if score.ok else None})


def _seed(seed: int) -> None:
    """Makes what the function draws follow from the caller's random state, which is saved."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _send(connection: socket.socket, row: dict[str, Any]) -> None:
    connection.sendall(json.dumps(row).encode() + b"\n")


def _die_with(alive: int) -> None:
    """Ends this process when the caller has, also one that is busy or stuck in a library."""
    if sys.platform == "linux":
        import fcntl

        # The kernel kills: a library that holds the interpreter would keep the thread waiting.
        fcntl.fcntl(alive, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(alive, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(alive, fcntl.F_SETFL, fcntl.fcntl(alive, fcntl.F_GETFL) | os.O_ASYNC)

    def watch() -> None:
        os.set_blocking(alive, True)
        os.read(alive, 1)
        os._exit(1)

    threading.Thread(target=watch, name="watch caller", daemon=True).start()
