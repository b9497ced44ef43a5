"""One run, watched from outside: pipes, deadline, end.

    files and filter into memory ─> bwrap ─> "started" ─> pump stdin, stdout, stderr ─> ended
                                                 └── deadline, cap on output, stop: kill ──┘

The program writes into pipes, which are read up to a cap. Killing the first process of the sandbox
ends its pid namespace, and with it every process the program has started; the run is over when the
kernel has said so.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tutelage.rewards.sandbox.command import (
    Descriptors,
    Interpreter,
    sandbox_command,
    unprivileged,
)
from tutelage.rewards.sandbox.limits import Limits
from tutelage.rewards.sandbox.pump import Pump
from tutelage.rewards.sandbox.result import SandboxResult, SandboxStatus

__all__ = ["Job", "Machine", "execute"]

_SHELL_SIGNAL = 128
"""A program ended by signal n leaves bubblewrap with exit code 128 + n."""
_NEARLY = 0.9
"""The kernel counts processor time by its ticks when it limits, exactly when it reports."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What all runs of a sandbox have in common."""

    bubblewrap: str
    python: Interpreter
    seccomp: bytes | None
    """The filter; none only while the other layers are probed."""


@dataclass(frozen=True, slots=True)
class Job:
    """One program to run."""

    files: Mapping[str, str]
    """Content by name in `/tmp`."""
    arguments: Sequence[str]
    """The program's file, then its arguments."""
    stdin: str = ""
    shared: tuple[int, ...] = ()
    """Descriptors the program inherits under the same numbers; ours are closed when it has them."""
    stop: int | None = None
    """The reading end of a pipe; when its other end closes, the run is ended."""


def execute(machine: Machine, limits: Limits, job: Job) -> SandboxResult:
    """Runs a program to its end, or ends it; what fails around it has status `ERROR`."""
    began = time.monotonic()
    try:
        return _run(machine, limits, job)
    except OSError as error:  # no memory, process or descriptor left for another sandbox
        wall_s = time.monotonic() - began
        return SandboxResult(SandboxStatus.ERROR, None, "", f"{error}", wall_s, 0.0)


def _run(machine: Machine, limits: Limits, job: Job) -> SandboxResult:
    with contextlib.ExitStack() as stack:
        process, started, info = _start(stack, machine, limits, job)
        pump = Pump(process, job.stdin, limits, started=started, info=info, stop=job.stop)
        cpu_s = 0.0
        try:
            pump.run()
        finally:
            cpu_s = _end(process, pump)
        pump.drain()
        return _result(process.returncode, pump, limits, cpu_s)


def _start(
    stack: contextlib.ExitStack, machine: Machine, limits: Limits, job: Job
) -> tuple[subprocess.Popen[bytes], int, int]:
    """The running process, and the pipes on which it says that it started and who it is."""
    with contextlib.ExitStack() as ours:  # what only the child needs
        for descriptor in job.shared:
            ours.callback(os.close, descriptor)
        started, tell_started = _pipe(stack, ours)
        info, tell_info = _pipe(stack, ours)
        descriptors = Descriptors(
            tell_started,
            tell_info,
            -1 if machine.seccomp is None else _memory_file(ours, machine.seccomp),
            tuple((name, _memory_file(ours, _bytes(text))) for name, text in job.files.items()),
        )
        process = subprocess.Popen(
            sandbox_command(machine.bubblewrap, machine.python, limits, descriptors, job.arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env={},
            start_new_session=True,
            pass_fds=[
                *(d for d in (tell_started, tell_info, descriptors.seccomp) if d >= 0),
                *(descriptor for _, descriptor in descriptors.files),
                *job.shared,
            ],
            **unprivileged(),
        )
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        stack.enter_context(pipe)
    return process, started, info


def _pipe(reading: contextlib.ExitStack, writing: contextlib.ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe()
    reading.callback(os.close, reader)
    writing.callback(os.close, writer)
    return reader, writer


def _bytes(text: str) -> bytes:
    # A model may write half of a surrogate pair; Python then reports the file as not UTF-8.
    return text.encode("utf-8", "surrogatepass")


def _memory_file(stack: contextlib.ExitStack, content: bytes) -> int:
    descriptor = os.memfd_create("file")
    stack.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _end(process: subprocess.Popen[bytes], pump: Pump) -> float:
    """Ends whatever still runs and waits for it; returns the processor seconds of all of it."""
    if pump.sandbox is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pump.sandbox, signal.SIGKILL)
        select.select([pump.sandbox], [], [])
        os.close(pump.sandbox)
    elif not pump.ended:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _result(returncode: int, pump: Pump, limits: Limits, cpu_s: float) -> SandboxResult:
    code = returncode if returncode < _SHELL_SIGNAL else _SHELL_SIGNAL - returncode
    exit_code: int | None = code
    if pump.started is None:
        status, exit_code = SandboxStatus.ERROR, None
    elif pump.verdict is not None:
        status, exit_code = pump.verdict, None
    elif code == -signal.SIGKILL and cpu_s >= _NEARLY * limits.cpu_s:
        status = SandboxStatus.CPU_LIMIT
    else:
        status = SandboxStatus.SIGNALLED if code < 0 else SandboxStatus.EXITED
    began = pump.began if pump.started is None else pump.started
    return SandboxResult(
        status,
        exit_code,
        pump.out.decode("utf-8", "replace"),
        pump.err.decode("utf-8", "replace"),
        wall_s=time.monotonic() - began,
        cpu_s=cpu_s,
    )
