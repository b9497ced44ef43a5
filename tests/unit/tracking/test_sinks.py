import json
import math
import os
import subprocess
import sys

import pytest

from tutelage.errors import CheckpointError
from tutelage.tracking.sinks import JsonLinesFile, JsonLinesSink, NullSink, TensorBoardSink


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_each_step_is_one_line(tmp_path):
    sink = JsonLinesSink(tmp_path / "metrics.jsonl")
    sink.write(1, 0.5, {"a/b": 1.5})
    sink.write(2, 0.75, {"a/b": -2.0, "a/c": 0.0})
    assert rows(tmp_path / "metrics.jsonl") == [
        {"step": 1, "seconds": 0.5, "metrics": {"a/b": 1.5}},
        {"step": 2, "seconds": 0.75, "metrics": {"a/b": -2.0, "a/c": 0.0}},
    ]
    sink.close()


def test_a_number_that_is_not_finite_is_null_with_a_flag(tmp_path):
    sink = JsonLinesSink(tmp_path / "m")
    sink.write(3, 0, {"a/x": math.nan, "a/y": math.inf, "a/z": -math.inf, "a/ok": 1.0})
    sink.close()
    text = (tmp_path / "m").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert rows(tmp_path / "m") == [
        {
            "step": 3,
            "seconds": 0,
            "metrics": {"a/x": None, "a/y": None, "a/z": None, "a/ok": 1.0},
            "non_finite": {"a/x": "nan", "a/y": "inf", "a/z": "-inf"},
        }
    ]


def test_lines_are_added_to_a_file_that_exists(tmp_path):
    for text in ("é", "line\nbreak"):
        file = JsonLinesFile(tmp_path / "a")
        file.append({"text": text})
        file.close()
    assert rows(tmp_path / "a") == [{"text": "é"}, {"text": "line\nbreak"}]


def test_a_full_disk_leaves_no_half_line(tmp_path):
    resource = pytest.importorskip("resource")
    file = JsonLinesFile(tmp_path / "a")
    file.append({"n": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            file.append({"text": "x" * 500})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.append({"n": 2})
    file.close()
    assert rows(tmp_path / "a") == [{"n": 1}, {"n": 2}]


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path):
    with pytest.raises(CheckpointError, match="cannot write"):
        JsonLinesSink(tmp_path / "absent" / "metrics.jsonl")


def test_the_null_sink_writes_nothing(tmp_path):
    sink = NullSink()
    sink.write(1, 0, {"a/b": 1.0})
    sink.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_each_scalar_at_its_step(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoardSink(tmp_path)
    for step in (1, 2, 3):
        sink.write(step, 0, {"a/b": step * 0.5})
    sink.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("a/b")] == [
        (1, 0.5),
        (2, 1.0),
        (3, 1.5),
    ]


def test_tensorboard_that_is_not_installed_names_the_extra(tmp_path):
    code = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from pathlib import Path\n"
        "from tutelage.errors import MissingExtraError\n"
        "from tutelage.tracking.sinks import TensorBoardSink\n"
        "try:\n    TensorBoardSink(Path(sys.argv[1]))\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "tensorboard is not installed: pip install 'tutelage[track]'"
