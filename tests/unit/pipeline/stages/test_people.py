"""`feedback: humans`: the stage waits for labels of people and takes them."""

import threading
import time

import pytest
from pydantic import ValidationError

from tutelage.config import HumansConfig, LabelStage
from tutelage.errors import DataError
from tutelage.feedback.server.labels import Submission
from tutelage.feedback.server.serve import open_site
from tutelage.pipeline.stages.label import run


@pytest.fixture
def stage(write_rows, tmp_path):
    """The settings of a stage on three prompts with two completions each."""
    rows = [
        {
            "id": f"p{n}",
            "prompt": [{"role": "user", "content": f"question {n}"}],
            "completions": [{"text": f"short {n}"}, {"text": f"a longer answer {n}"}],
        }
        for n in range(3)
    ]
    samples = write_rows("samples.jsonl", rows)

    def make(**humans):
        where = {"database": str(tmp_path / "labels.sqlite"), "poll_seconds": 0.05, **humans}
        return LabelStage(samples=samples, feedback="humans", humans=HumansConfig(**where))

    return make


def label(database, who, tasks):
    """What a person does on the page."""
    with open_site(database) as site:
        for n in range(tasks):
            task = site.tasks.claim(1, who)
            left = site.tasks.shown(task, who).left
            choice = 1 if left.startswith("a longer") else 7
            site.labels.record(task, who, Submission("label", f"{who} key {n}", 0, choice))


def test_stage_waits_for_people_and_takes_what_they_say(stage, context, read_rows):
    config, place = stage(quota=2), context()
    found = {}
    waiting = threading.Thread(target=lambda: found.update(run(config, place)))
    waiting.start()
    while True:
        with open_site(config.humans.database) as site:
            if site.projects.named("labels") and site.projects.progress(1).tasks == 3:
                break
        time.sleep(0.05)
    label(config.humans.database, "ada", 3)
    assert waiting.is_alive()
    label(config.humans.database, "bob", 3)
    waiting.join(60)
    assert not waiting.is_alive()
    assert found["preferences"] == 6
    assert (found["agreement"], found["prefers_longer"]) == (1.0, 1.0)
    rows = read_rows(place.folder / "preferences.jsonl")
    assert sorted(row["annotator"] for row in rows) == ["ada"] * 3 + ["bob"] * 3


def test_deadline_takes_what_is_there(stage, context):
    config = stage(deadline_hours=0.0)
    with pytest.raises(DataError, match="0 labels, expected 1 or more"):
        run(config, context())
    label(config.humans.database, "ada", 2)
    # The stage that failed is run again, and finds the project and its labels.
    found = run(config, context())
    assert found["preferences"] == 2
    assert "agreement" not in found


def test_simulation_needs_its_annotator():
    with pytest.raises(ValidationError, match="annotator is missing"):
        LabelStage(samples="x")
