"""Rows for a GPU, at toy size on the CPU: real models and gates, in this process."""

import importlib

import pytest
from benchmarks.core.row import NotAvailable
from benchmarks.core.run import run_row
from benchmarks.core.worker import turn
from benchmarks.rows import ROWS
from benchmarks.rows.idle import idle_share

ON_A_GPU = [name for name, make in ROWS.items() if make(True).device == "cuda"]
WITHOUT_A_CPU_FORM = {
    "H7": "a round is scored after its last completion has ended, not meanwhile",
    "H8": "there is no GPU that could be idle: the row runs on cpu",
}
LOADED_HERE = (
    "benchmarks.sides.heads:PeerHead",
    "benchmarks.sides.padded:PaddedUpdate",
    "benchmarks.sides.rollouts:Generate",
)


class InThisProcess:
    """A side without a process of its own; peers whose packages are not here are missing."""

    def __init__(self, side):
        self.side = side

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def prepare(self):
        if self.side.name.startswith("rates"):
            return {}
        if not self.side.ours and self.side.workload not in LOADED_HERE:
            raise NotAvailable("it needs an environment of its own")
        module, _, name = self.side.workload.partition(":")
        self.workload = getattr(importlib.import_module(module), name)(**self.side.options)
        self.workload.prepare()
        return {}

    def check(self):
        return [line.to_json() for line in self.workload.check()]

    def run(self, seconds=0.0):
        if self.side.name.startswith("rates"):
            return {"flops": 1e9, "bytes_per_s": 1e9}
        return turn(self.workload, seconds)


@pytest.mark.parametrize("name", [name for name in ON_A_GPU if name not in WITHOUT_A_CPU_FORM])
def test_row_runs_end_to_end_at_toy_size_and_passes_its_gate(name):
    record = run_row(ROWS[name](True).on("cpu"), 1, InThisProcess)
    assert (record["status"], record["reason"]) == ("ok", None)
    assert record["parity"], "a speed without a gate"
    assert all(line["passed"] for line in record["parity"])
    assert all(share > 0 for share in record["limit"]["share"].values())


@pytest.mark.parametrize("name", WITHOUT_A_CPU_FORM)
def test_row_that_cannot_run_says_why(name):
    record = run_row(ROWS[name](True).on("cpu"), 1, InThisProcess)
    assert (record["status"], record["reason"]) == ("not available", WITHOUT_A_CPU_FORM[name])


def test_idle_is_what_no_kernel_covers():
    # 1-3 and 2-5 overlap, 2-4 lies inside: 1-5 and 7-8 of ten are covered.
    assert idle_share([(2, 4), (7, 8), (1, 3), (2, 5)], 0, 10) == pytest.approx(0.5)
    assert idle_share([], 0, 10) == 1.0
    assert idle_share([(0, 10)], 0, 10) == 0.0
