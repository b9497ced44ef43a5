import sys
from pathlib import Path

import pytest
from benchmarks.core.process import SideFailed, SideProcess
from benchmarks.core.row import Side


def test_a_killed_side_is_said_to_have_run_out_of_memory(tmp_path):
    side = Side("ours", "benchmarks.rows.start:OurStart")
    with SideProcess(side, Path(sys.executable), tmp_path / "log", threads=1) as process:
        process._process.kill()
        process._process.wait()
        with pytest.raises(SideFailed, match=r"^ours was killed: .*ran out of memory$"):
            process.prepare()


def test_a_failure_is_a_line_to_be_stored_and_a_traceback_to_be_shown(tmp_path):
    side = Side("ours", "benchmarks.rows.start:NoSuchSide")
    with (
        SideProcess(side, Path(sys.executable), tmp_path / "log", threads=1) as process,
        pytest.raises(SideFailed, match=r"^ours failed: AttributeError: .*$") as caught,
    ):
        process.prepare()
    assert "Traceback" in caught.value.log
