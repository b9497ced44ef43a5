"""Shows that each layer of the sandbox holds on this machine, before anything else runs in it.

A layer is not taken for granted because a tool was asked for it: two programs of our own try,
inside, what the layers forbid. One runs without the filter, so no layer hides behind another.
"""

import contextlib
import ctypes
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from tutelage.rewards.sandbox.command import inside
from tutelage.rewards.sandbox.execute import Job, Machine, execute
from tutelage.rewards.sandbox.limits import Limits
from tutelage.rewards.sandbox.result import SandboxUnavailable

__all__ = ["require_layers"]

_MIB = 1 << 20
_LIMITS = Limits(
    cpu_s=10,
    wall_s=60.0,
    memory_bytes=128 * _MIB,
    disk_bytes=_MIB,
    processes=3,
    open_files=16,
)
_ADVICE = (
    "bubblewrap must be able to make namespaces: allow unprivileged user namespaces (sysctl "
    "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, "
    "user.max_user_namespaces above 0), and inside a container start that one with "
    "--security-opt seccomp=unconfined. Nothing runs without this layer."
)


@cache
def require_layers(machine: Machine) -> None:
    """Returns when every layer holds; what it found holds for the life of the process.

    Raises:
        SandboxUnavailable: naming the first layer that does not.
    """
    with _outside() as (port, memory):
        bounds = (
            _LIMITS.memory_bytes,
            _LIMITS.disk_bytes,
            _LIMITS.open_files,
            _LIMITS.processes,
            _LIMITS.cpu_s,
        )
        arguments = [str(number) for number in (port, memory, *bounds)]
        _probe(replace(machine, seccomp=None), "probe.py", arguments)
    broken = _run(machine, "probe_filter.py", [])
    if broken:
        raise SandboxUnavailable(
            "seccomp filter",
            f"these calls went through: {', '.join(broken)}",
            "The kernel needs CONFIG_SECCOMP_FILTER, and libseccomp its architecture.",
        )


def _probe(machine: Machine, program: str, arguments: list[str]) -> None:
    broken = _run(machine, program, arguments)
    if broken:
        raise SandboxUnavailable(broken[0], "a program inside could do what it forbids", _ADVICE)


def _run(machine: Machine, program: str, arguments: list[str]) -> list[str]:
    """The lines one of our own programs prints."""
    job = Job({program: inside(program)}, [program, *arguments])
    result = execute(machine, _LIMITS, job)
    if not result.ok:
        found = (result.stderr.strip().splitlines() or [result.status.value])[-1]
        raise SandboxUnavailable("working start", found, _ADVICE)
    return [line for line in result.stdout.splitlines() if line]


@contextlib.contextmanager
def _outside() -> Iterator[tuple[int, int]]:
    """A listening port and a piece of shared memory, which nobody inside may reach."""
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        memory = libc.shmget(0, 4096, 0o666)
        try:
            yield server.getsockname()[1], memory
        finally:
            libc.shmctl(memory, 0, None)
