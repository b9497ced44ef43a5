"""Wall seconds and most memory of a command with all it starts.

    python -m benchmarks.peak make quickstart

Twice a second the proportional set sizes of all its processes are added up: a page that several
share counts once. Linux alone tells them. Exits as the command does.
"""

import sys
import time
from collections.abc import Sequence

import psutil

_PAUSE = 0.5
"""Seconds between two looks; what comes and goes in less may be missed."""


def main(command: Sequence[str] | None = None) -> int:
    """Runs the command, whose output goes where it would have gone."""
    command = sys.argv[1:] if command is None else command
    if not command:
        print("expected a command, as in: python -m benchmarks.peak make quickstart")
        return 2
    began, peak = time.monotonic(), 0
    process = psutil.Popen(command)
    while process.poll() is None:
        family = [process, *process.children(recursive=True)]
        peak = max(peak, sum(map(_proportional_bytes, family)))
        time.sleep(_PAUSE)
    print(f"{time.monotonic() - began:.0f} s, {peak / 2**30:.2f} GiB at most over all processes")
    return process.returncode


def _proportional_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:  # It has just ended.
        return 0


if __name__ == "__main__":
    sys.exit(main())
