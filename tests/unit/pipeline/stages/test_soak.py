"""A long run does not grow: neither memory, nor open files, nor threads.

`make soak` runs it, for ten minutes or for the SOAK_MINUTES of the environment.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tutelage.config.document import to_yaml

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
WARM_UP = 0.3
"""Share of the time in which caches fill, allocators settle and nothing is judged."""


@dataclass(frozen=True)
class Look:
    """A process at one moment."""

    seconds: float
    resident: int
    """Bytes of memory."""
    files: int
    threads: int


def look(pid: int, began: float) -> Look:
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return Look(
        time.monotonic() - began,
        int(fields["VmRSS"].split()[0]) * 1024,
        len(os.listdir(f"/proc/{pid}/fd")),
        int(fields["Threads"]),
    )


def growth_per_hour(looks: Sequence[Look]) -> float:
    """Memory's slope by least squares, as a share of its mean."""
    fit = statistics.linear_regression(
        [each.seconds for each in looks], [each.resident for each in looks]
    )
    return 3600 * fit.slope / statistics.mean(each.resident for each in looks)


def test_growth_is_found():
    flat = [Look(s, 10**9, 20, 5) for s in range(100)]
    assert growth_per_hour(flat) == 0.0
    # 1 MB a minute on 1 GB is 6 % an hour.
    growing = [Look(60.0 * m, 10**9 + m * 10**6, 20, 5) for m in range(100)]
    assert growth_per_hour(growing) == pytest.approx(0.06, rel=0.06)


def stage_process(supervisor: int) -> int | None:
    """The process that runs the stage: a child of the fork server, a child of the supervisor."""
    for server in children(supervisor):
        for child in children(server):
            return child
    return None


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.soak
def test_long_run_does_not_grow(tiny_recipe, tmp_path):
    stage = tiny_recipe.stages["train"].to_json()
    # Probes are kept until the end of a stage, by intention.
    stage |= {"probes": None, "ppo": {**stage["ppo"], "steps": 10**7}}
    recipe = {**tiny_recipe.to_json(), "stages": {"train": stage}}
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tutelage", "run", str(tmp_path / "recipe.yaml")]
    command += ["--output", str(run), "--checkpoint.seconds", "5"]
    with (tmp_path / "printed.txt").open("w") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=printed, start_new_session=True)
    began, looks = time.monotonic(), {"supervisor": [], "stage": []}
    try:
        while time.monotonic() - began < 60 * MINUTES:
            time.sleep(1.0)
            assert process.poll() is None, (tmp_path / "printed.txt").read_text()
            child = stage_process(process.pid)
            if child is not None:
                looks["supervisor"].append(look(process.pid, began))
                looks["stage"].append(look(child, began))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 143
    finally:
        process.kill()
        process.wait()
    faults = []
    for name, seen in looks.items():
        settled = seen[int(WARM_UP * len(seen)) :]
        growth = growth_per_hour(settled)
        files, threads = {x.files for x in settled}, {x.threads for x in settled}
        told = (
            f"{name}: {settled[-1].resident / 2**20:.1f} MiB, {100 * growth:+.2f} % an hour, "
            f"{min(files)}-{max(files)} files, {min(threads)}-{max(threads)} threads, "
            f"{len(settled)} looks"
        )
        print(told)
        # A checkpoint has a file open while it is written.
        still = max(files) - statistics.mode(x.files for x in settled) <= 2
        if growth >= 0.01 or not still or len(threads) > 1:
            faults.append(told)
    assert not faults
