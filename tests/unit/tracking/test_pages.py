import json
import re
from pathlib import Path

import pytest

from tutelage.tracking.example_run import example_evaluation, write_example_run
from tutelage.tracking.metrics import MetricWriter

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_example_run(tmp_path_factory.mktemp("runs") / "demo", steps=2)


def documented(page, heading=""):
    """The keys in the first column of the tables below a heading."""
    text = (DOCS / page).read_text("utf-8")
    text = text[text.index(heading) :]
    if heading:
        text = text[: text.index("\n#", 1)]
    first = re.findall(r"^\| *((?:`[^`]+`(?:, )?)+) *\|", text, re.MULTILINE)
    return [key for cell in first for key in re.findall(r"`([^`]+)`", cell)]


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_no_metric_is_documented_twice_and_each_is_group_and_name():
    keys = documented("metrics.md")
    assert len(keys) > 50
    assert len(keys) == len(set(keys))
    assert all(re.fullmatch(r"[a-z_]+/([a-z0-9_]+|<part>)", key) for key in keys)


def test_every_metric_of_the_example_run_is_documented(run):
    keys = set(documented("metrics.md"))
    for path in run.glob("stages/*/metrics.jsonl"):
        for row in rows(path):
            assert set(row["metrics"]) <= keys


@pytest.mark.parametrize(
    ("heading", "file"),
    [
        ("### manifest.json", "sft/manifest.json"),
        ("### samples.jsonl", "ppo-guarded/samples.jsonl"),
        ("### labels.json", "labels/labels.json"),
        ("### reward.json", "reward-people/reward.json"),
        ("### evaluation.json", "evaluate/evaluation.json"),
        ("## summary.json", "../summary.json"),
    ],
)
def test_every_key_of_a_file_is_documented(run, heading, file):
    path = run / "stages" / file
    text = path.read_text("utf-8")
    row = json.loads(text.splitlines()[0] if path.suffix == ".jsonl" else text)
    assert set(row) <= set(documented("run-folder.md", heading))


def test_the_form_of_a_metrics_row_is_as_documented(tmp_path):
    with MetricWriter.open(tmp_path) as writer:
        writer.log(1, {"policy/loss": float("nan")})
    (row,) = rows(tmp_path / "metrics.jsonl")
    assert row["non_finite"] == {"policy/loss": "nan"}
    assert set(row) == {"step", "seconds", "metrics", "non_finite"}


def test_every_measure_of_the_example_says_what_is_documented():
    named = {"key", "label", "unit", "better", "description", "role"}
    assert all(set(measure) <= named for measure in example_evaluation()["measures"])
