"""The first thing that runs in the sandbox: gives up what the program must not have.

    rlimits ─> seccomp: no call beyond the list ─> no environment ─> "started" ─> program

Arguments: the descriptor of the filter (-1: none, for probing the other layers), the descriptor
on which to say that the program starts, the limits as `NAME=number`, `--`, the program's file and
its arguments. Whatever fails here fails before the program's first line.
"""

import ctypes
import os
import resource
import sys
from importlib.machinery import SourceFileLoader

__all__ = ["Instructions", "lock", "main", "take_limits"]

PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
BYTES_PER_INSTRUCTION = 8


class Instructions(ctypes.Structure):
    """`struct sock_fprog` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("first", ctypes.c_char_p))


def take_limits(limits: list[str]) -> None:
    """Sets soft and hard limits: at the end of its processor time a process is killed."""
    for limit in limits:
        name, _, number = limit.partition("=")
        resource.setrlimit(getattr(resource, name), (int(number), int(number)))


def lock(descriptor: int) -> None:
    """Loads the filter for good: from here on no other program can be started."""
    code = os.read(descriptor, 1 << 16)
    os.close(descriptor)
    program = Instructions(len(code) // BYTES_PER_INSTRUCTION, code)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if prctl(*arguments):
            raise OSError(ctypes.get_errno(), "the seccomp filter was refused")


def main() -> None:
    """Becomes the program."""
    separator = sys.argv.index("--")
    filter_descriptor, started, *limits = sys.argv[1:separator]
    take_limits(limits)
    if int(filter_descriptor) >= 0:
        lock(int(filter_descriptor))
    os.environ.clear()
    os.write(int(started), b"1")
    os.close(int(started))
    sys.argv = sys.argv[separator + 1 :]
    sys.path.insert(0, os.getcwd())
    module = type(sys)("__main__")
    module.__file__ = sys.argv[0]
    sys.modules["__main__"] = module
    SourceFileLoader("__main__", sys.argv[0]).exec_module(module)


main()
