"""Tries what each layer forbids, and prints the layers that did not hold.

Runs without the seccomp filter, which would hide whether the layers below it are there. Arguments:
a port that listens outside, the number of a piece of System V memory outside, then the limits on
memory, disk, open files and processes.
"""

import ctypes
import os
import resource
import socket
import sys

__all__ = ["connects", "fills", "forks", "opens", "works", "writes"]

PORT, MEMORY_ID, MEMORY, DISK, FILES, PROCESSES, CPU = map(int, sys.argv[1:])
IPC_STAT = 2
libc = ctypes.CDLL(None, use_errno=True)


def works(act):
    """Whether the operating system lets it happen."""
    try:
        return bool(act())
    except (OSError, MemoryError):
        return False


def connects():
    """Reaches a server outside."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=1):
        return True


def writes(path):
    """Creates a file."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    return True


def fills():
    """Puts more into two files than both may hold together."""
    try:
        for name in ("a", "b"):
            with open(name, "wb") as file:
                file.write(bytes(DISK * 3 // 4))
        return True
    finally:
        for name in ("a", "b"):
            if os.path.exists(name):
                os.unlink(name)


def opens():
    """Opens more files than allowed."""
    files: list[int] = []
    try:
        while len(files) <= FILES:
            files.append(os.open("/dev/null", os.O_RDONLY))
        return True
    finally:
        for file in files:
            os.close(file)


def forks():
    """Has more processes at once than allowed."""
    reader, writer = os.pipe()
    children: list[int] = []
    try:
        while len(children) < PROCESSES:
            child = os.fork()
            if not child:
                os.close(writer)
                os.read(reader, 1)
                os._exit(0)
            children.append(child)
        return True
    finally:
        os.close(writer)
        for child in children:
            os.waitpid(child, 0)


FORBIDDEN = {
    "user namespace without capabilities": lambda: (
        os.getuid() == 0 or libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0
    ),
    "pid namespace": lambda: os.getpid() != 1,
    "network namespace": connects,
    "mount namespace": lambda: any(
        map(os.path.exists, ("/etc", "/home", "/proc", "/sys", "/root"))
    ),
    "read-only root": lambda: any(
        works(lambda place=place: writes(f"{place}/probe"))
        for place in ("", "/dev", "/usr", os.path.dirname(os.__file__))
    ),
    "ipc namespace": lambda: (
        libc.shmctl(MEMORY_ID, IPC_STAT, ctypes.create_string_buffer(256)) == 0
    ),
    "uts namespace": lambda: socket.gethostname() != "sandbox",
    "limit on files in /tmp": fills,
    "limit on memory": lambda: bytearray(MEMORY),
    "limit on open files": opens,
    "limit on processes": forks,
    # To use the time up would take a second of everybody's first run.
    "limit on processor time": lambda: resource.getrlimit(resource.RLIMIT_CPU) != (CPU, CPU),
    "empty environment": lambda: os.environ,
}

print("\n".join(layer for layer, act in FORBIDDEN.items() if works(act)))
