"""Alarms in a real stage: said once, counted in the files, summed up, and able to end it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.config import TrainStage
from tutelage.errors import TrainingError
from tutelage.pipeline.checkpoints import NullCheckpoints
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages import train
from tutelage.tracking.metrics import MetricWriter
from tutelage.tracking.progress import Progress, StageMessage


class Saves(NullCheckpoints):
    """Remembers when it was asked to save."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def save(self, step: int) -> None:
        self.steps.append(step)


@pytest.fixture
def stage(tiny_recipe):
    """The tiny stage with these alarms, five rounds of it."""

    def build(**alarms: Any) -> TrainStage:
        row = tiny_recipe.stages["train"].to_json()
        row |= {"probes": None, "ppo": {**row["ppo"], "steps": 5, "alarms": alarms}}
        return TrainStage.model_validate(row)

    return build


@pytest.fixture
def watched(context):
    """A context whose messages and saves can be read."""

    def build() -> tuple[StageContext, list[str], Saves]:
        messages, saves = [], Saves()

        def hear(event: Any) -> None:
            if isinstance(event, StageMessage):
                messages.append(event.text)

        base = context()
        return (
            replace(
                base,
                progress=Progress("train", hear),
                metrics=MetricWriter.open(base.folder),
                checkpoints=saves,
            ),
            messages,
            saves,
        )

    return build


def counts(folder: Path, name: str) -> list[float | None]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["metrics"].get(f"alarm/{name}") for row in rows]


def test_alarm_warns_once_and_is_counted_and_summed_up(stage, watched):
    place, messages, saves = watched()
    with place.metrics:
        result = train.run(stage(entropy_collapse_limit=99.0), place)
    (message,) = [text for text in messages if "entropy_collapse" in text]
    assert message.startswith("alarm entropy_collapse in step 0: the entropy is ")
    assert counts(place.folder, "entropy_collapse") == [1, 2, 3, 4, 5]
    assert result["alarm/entropy_collapse"] == 5
    assert result["alarm/entropy_collapse/first"] == 0
    assert saves.steps == []


def test_alarm_that_stops_saves_first(stage, watched):
    place, _, saves = watched()
    with (
        pytest.raises(TrainingError, match=r"step 0 by alarm entropy_collapse") as stopped,
        place.metrics,
    ):
        train.run(stage(entropy_collapse="stop", entropy_collapse_limit=99.0), place)
    assert stopped.value.exit_code == 3
    assert saves.steps == [1]
    assert counts(place.folder, "entropy_collapse") == [1]


def test_silence_leaves_no_trace(stage, watched):
    place, messages, _ = watched()
    silent = dict.fromkeys(("never_ends", "value_divergence", "kl_runaway"), "off")
    with place.metrics:
        result = train.run(stage(**silent), place)
    assert not [key for key in result if key.startswith("alarm")]
    assert not [text for text in messages if text.startswith("alarm")]
