"""Wall seconds and most memory of a command with all it starts.

    python -m benchmarks.peak make quickstart

Twice a second the proportional set sizes of all its processes are added up: a page that several
share counts once. Linux alone tells them. Exits as the command does.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_PAUSE = 0.5
"""Seconds between two looks; what comes and goes in less may be missed."""


def main(command: Sequence[str] | None = None) -> int:
    """Runs the command, whose output goes where it would have gone."""
    command = sys.argv[1:] if command is None else command
    if not command:
        print("expected a command, as in: python -m benchmarks.peak make quickstart")
        return 2
    began, peak = time.monotonic(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, sum(_proportional_bytes(each) for each in _family(process.pid)))
        time.sleep(_PAUSE)
    print(f"{time.monotonic() - began:.0f} s, {peak / 2**30:.2f} GiB at most over all processes")
    return process.returncode


def _family(process: int) -> Iterator[int]:
    """The process and all that come of it; one that has just ended has none."""
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            born = children.read_text("ascii").split()
        except OSError:
            continue
        for child in born:
            yield from _family(int(child))


def _proportional_bytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    sys.exit(main())
