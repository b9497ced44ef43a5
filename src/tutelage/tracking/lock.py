"""One run folder, one run: a second run on the same folder is refused.

The kernel holds the lock (`flock`) and drops it when its process ends, however it
ends; the file's text only says who holds it. A file left by a killed run is
therefore taken over without asking.
"""

import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from tutelage.errors import CheckpointError
from tutelage.tracking.atomic import storage_error

__all__ = ["RunLock"]


class RunLock:
    """Context manager that owns `run_folder` for this process."""

    def __init__(self, run_folder: Path) -> None:
        """Creates the folder where it does not exist; locks only on entering."""
        self.path = run_folder / ".lock"
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Takes the lock.

        Raises:
            CheckpointError: another process holds it; the message names pid and host.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise storage_error(self.path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(os.read(descriptor, 4096))
            os.close(descriptor)
            raise CheckpointError(
                f"{self.path.parent} is in use by {owner}. "
                "Wait until it ends, stop it, or choose another run folder"
            ) from None
        _write_owner(descriptor)
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        """Releases the lock. The empty file stays: removing it would race with a new owner."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def _write_owner(descriptor: int) -> None:
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _owner(text: bytes) -> str:
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        # The owner has the lock and has not written its name yet.
        return "another process"
