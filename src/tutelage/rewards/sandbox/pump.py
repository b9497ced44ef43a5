"""Moves bytes between us and a running sandbox until it ends or must be ended."""

import json
import os
import selectors
import subprocess
import time
from collections.abc import Callable

from tutelage.rewards.sandbox.limits import Limits
from tutelage.rewards.sandbox.result import SandboxStatus

__all__ = ["Pump"]

_START_S = 60.0
"""How long starting may take before the sandbox counts as broken; a busy machine is slow."""
_CHUNK = 1 << 16


class Pump:
    """The state of one run as seen from outside."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        stdin: str,
        limits: Limits,
        *,
        started: int,
        info: int,
        stop: int | None,
    ) -> None:
        """`started`, `info` and `stop` are reading ends of pipes."""
        self.out, self.err = bytearray(), bytearray()
        self.began = time.monotonic()
        self.started: float | None = None
        """When the program's first line ran."""
        self.sandbox: int | None = None
        """A handle on the sandbox's first process: the process itself, never a later namesake."""
        self.verdict: SandboxStatus | None = None
        """Why we end the run; nothing where it ended by itself."""
        self.ended = False
        self._limits = limits
        self._input = memoryview(stdin.encode("utf-8", "surrogatepass"))
        self._info = bytearray()
        self._process = process
        self._channels = (started, info, stop)

    def run(self) -> None:
        """Returns when the process has ended, or as soon as it must be ended."""
        started, info, stop = self._channels
        process = self._process
        assert process.stdin and process.stdout and process.stderr
        ended = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                self._selector = selector
                self._watch(process.stdout.fileno(), lambda f: self._read(f, self.out))
                self._watch(process.stderr.fileno(), lambda f: self._read(f, self.err))
                self._watch(started, self._on_started)
                self._watch(info, self._on_info)
                self._watch(ended, self._on_end)
                if stop is not None:
                    self._watch(stop, self._on_stop)
                self._feed(process.stdin.fileno())
                self._loop()
        finally:
            os.close(ended)

    def drain(self) -> None:
        """Takes what the program had written when it ended."""
        assert self._process.stdout and self._process.stderr
        for pipe, kept in ((self._process.stdout, self.out), (self._process.stderr, self.err)):
            os.set_blocking(pipe.fileno(), False)
            while self.verdict is None:
                try:
                    chunk = os.read(pipe.fileno(), _CHUNK)
                except BlockingIOError:
                    break
                if not chunk:
                    break
                self._keep(chunk, kept)

    def _loop(self) -> None:
        while not self.ended and self.verdict is None:
            begin, allowed = (
                (self.began, _START_S)
                if self.started is None
                else (self.started, self._limits.wall_s)
            )
            remaining = begin + allowed - time.monotonic()
            if remaining <= 0:
                self.verdict = SandboxStatus.WALL_LIMIT
                return
            for key, _ in self._selector.select(remaining):
                key.data(key.fd)

    def _watch(self, descriptor: int, react: Callable[[int], None]) -> None:
        os.set_blocking(descriptor, False)
        self._selector.register(descriptor, selectors.EVENT_READ, react)

    def _read(self, descriptor: int, kept: bytearray) -> None:
        chunk = os.read(descriptor, _CHUNK)
        if chunk:
            self._keep(chunk, kept)
        else:
            self._selector.unregister(descriptor)

    def _keep(self, chunk: bytes, kept: bytearray) -> None:
        room = self._limits.output_bytes - len(self.out) - len(self.err)
        kept += chunk[:room]
        if len(chunk) > room:
            self.verdict = SandboxStatus.OUTPUT_LIMIT

    def _on_started(self, descriptor: int) -> None:
        if os.read(descriptor, 1):
            self.started = time.monotonic()
        self._selector.unregister(descriptor)

    def _on_info(self, descriptor: int) -> None:
        chunk = os.read(descriptor, _CHUNK)
        self._info += chunk
        if chunk:
            return
        self._selector.unregister(descriptor)
        if self._info and not self.ended:
            try:
                self.sandbox = os.pidfd_open(json.loads(self._info)["child-pid"])
            except ProcessLookupError:
                self.sandbox = None  # it has ended already

    def _on_end(self, _: int) -> None:
        self.ended = True

    def _on_stop(self, _: int) -> None:
        self.verdict = SandboxStatus.STOPPED

    def _feed(self, descriptor: int) -> None:
        """Writes standard input as the program reads it, then closes it."""
        assert self._process.stdin
        if not self._input:
            self._process.stdin.close()
            return
        os.set_blocking(descriptor, False)
        self._selector.register(descriptor, selectors.EVENT_WRITE, self._write)

    def _write(self, descriptor: int) -> None:
        try:
            self._input = self._input[os.write(descriptor, self._input) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._input = self._input[:0]
        if not self._input:
            assert self._process.stdin
            self._selector.unregister(descriptor)
            self._process.stdin.close()
