import json

import pytest

from tutelage.errors import CheckpointError
from tutelage.tracking.example_run import example_evaluation, write_example_run
from tutelage.tracking.manifest import load_manifest
from tutelage.tracking.summary import write_summary


def test_the_summary_has_one_object_per_stage_and_the_evaluation(tmp_path):
    run = write_example_run(tmp_path / "demo", steps=3)
    path = write_summary(run, name="demo", seed=4, seconds=12.34567)
    summary = json.loads(path.read_text())
    assert (summary["name"], summary["seed"], summary["seconds"]) == ("demo", 4, 12.346)
    assert set(summary) == {"name", "seed", "seconds", "stages", "evaluation"}
    sft = summary["stages"]["sft"]
    assert sft["kind"] == "sft"
    assert sft["metrics"] == {"sft/loss": 1.14, "sft/tokens": 812_345}
    assert sft["seconds"] == load_manifest(run / "stages" / "sft").seconds
    evaluation = summary["evaluation"]
    assert evaluation["models"] == example_evaluation()["models"]
    assert evaluation["differences"] == example_evaluation()["differences"]
    assert "samples" not in evaluation
    assert "histograms" not in evaluation


def test_there_is_no_summary_of_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="no finished stage"):
        write_summary(tmp_path, name="x", seed=0, seconds=1)
