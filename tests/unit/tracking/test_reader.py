import json
import shutil

import pytest

from tutelage.errors import CheckpointError
from tutelage.tracking.example_run import write_example_run
from tutelage.tracking.reader import read_json_lines, read_run


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return write_example_run(tmp_path_factory.mktemp("runs") / "demo", steps=6)


@pytest.fixture
def folder(example, tmp_path):
    return shutil.copytree(example, tmp_path / "demo")


def test_a_run_is_read_back_in_the_order_it_was_made(folder):
    run = read_run(folder)
    assert [stage.name for stage in run.stages] == [
        "sft",
        "labels",
        "reward-people",
        "reward-hybrid",
        "ppo-unguarded",
        "ppo-guarded",
        "evaluate",
    ]
    assert (run.name, run.seconds) == ("demo", 284.0)
    assert [model.name for model in run.evaluation.models] == ["before", "unguarded", "guarded"]
    ppo = run.stages[4]
    assert len(ppo.metrics) == len(ppo.samples()) == 6
    assert ppo.labels is None
    assert run.stages[1].labels["annotators"]["judge"] == 12000


def test_a_run_without_summary_has_the_folder_name_and_the_sum_of_its_stages(folder):
    (folder / "summary.json").unlink()
    run = read_run(folder)
    assert run.name == "demo"
    assert run.seconds == pytest.approx(sum(stage.manifest.seconds for stage in run.stages))


def test_a_curve_leaves_out_what_was_not_finite(folder):
    path = folder / "stages" / "sft" / "metrics.jsonl"
    rows = [(1, 0.5), (2, None), (4, 0.25)]
    path.write_text("".join(json.dumps({"step": s, "metrics": {"a/x": v}}) + "\n" for s, v in rows))
    stage = read_run(folder).stages[0]
    assert stage.curve("a/x") == ([1.0, 4.0], [0.5, 0.25])
    assert stage.curve("a/absent") == ([], [])
    assert stage.metric_keys == ["a/x"]


def test_samples_that_are_data_are_not_taken_for_what_a_policy_wrote_in_training(folder):
    (folder / "stages" / "sft" / "samples.jsonl").write_text('{"completions": []}\n')
    stages = {stage.name: stage for stage in read_run(folder).stages}
    assert stages["sft"].samples() == ()
    assert stages["ppo-guarded"].samples()[-1]["step"] == 6


def test_unfinished_stages_are_not_looked_at(folder):
    partial = folder / "stages" / ".next.partial"
    partial.mkdir()
    (partial / "manifest.json").write_text("{")
    assert len(read_run(folder).stages) == 7


def test_an_empty_run_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match="no finished stage: start the run"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sft/metrics.jsonl", '{"step": 1, "metrics": {}}\n{"step": 2,'),
        ("labels/labels.json", "["),
        ("evaluate/evaluation.json", '{"models": []}'),
        ("evaluate/evaluation.json", '{"models": [1], "measures": []}'),
        ("ppo-guarded/manifest.json", ""),
    ],
)
def test_a_damaged_file_is_named(folder, file, text):
    (folder / "stages" / file).write_text(text)
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        read_run(folder)


def test_the_line_of_the_fault_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(CheckpointError, match=r"a\.jsonl:3 cannot be read"):
        read_json_lines(tmp_path / "a.jsonl")


def test_line_separators_inside_text_do_not_end_a_line(tmp_path):
    row = {"text": "one\u2028two\x85three"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    assert read_json_lines(tmp_path / "a.jsonl") == (row,)
    assert read_json_lines(tmp_path / "absent.jsonl") == ()
