"""The guard in a real stage: what it costs, what it does, and that it resumes bit for bit."""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tutelage.config import CheckpointConfig, TrainStage
from tutelage.pipeline.checkpoints import CheckpointPlace, Checkpoints, StopRequested
from tutelage.pipeline.guard_tools import read_watched
from tutelage.pipeline.stages import train
from tutelage.tracking.metrics import MetricWriter
from tutelage.tracking.progress import Progress, StageProgress

SIGNALS = """
def falling(prompt, completion, calls=[0]):
    calls[0] += 1
    return -float(calls[0] // 16) + 0.01 * (calls[0] % 3)

def steady(prompt, completion):
    return 0.1 * len(completion.text)

def rising_reward(prompt, completion, calls=[0]):
    calls[0] += 1
    return float(calls[0]) + 0.1 * completion.text.count("a")

def first_letters(comparisons):
    return [0.5 + 0.4 * ((c.a[:1] < c.b[:1]) - (c.a[:1] > c.b[:1])) for c in comparisons]
"""
"""Functions that count their calls stand for drifts that no training of milliseconds has."""


@pytest.fixture
def stage(tiny_recipe, tmp_path) -> Callable[..., TrainStage]:
    """Six rounds of the tiny stage, a probe of 16 answers after every second."""
    (tmp_path / "signals.py").write_text(SIGNALS)

    def build(guard: dict[str, Any] | None, **changes: Any) -> TrainStage:
        row = tiny_recipe.stages["train"].to_json()
        ppo = {**row["ppo"], "steps": 6, "kl": {"coefficient": 0.1}, "critic_warmup": 0}
        row |= {"ppo": ppo, "probe_every": 2, "probe_count": 16, "guard": guard, **changes}
        return TrainStage.model_validate(row)

    return build


@pytest.fixture
def drifting(stage, tmp_path) -> Callable[..., TrainStage]:
    """A reward that rises and a signal that falls with every call."""

    def build(action: str, **guard: Any) -> TrainStage:
        functions = {f"{tmp_path / 'signals.py'}:rising_reward": 1.0}
        held_out = {"falling": {"function": f"{tmp_path / 'signals.py'}:falling"}}
        monitors = {"divergence": action, "decoupling": "off"}
        return stage(
            {"signals": held_out, "monitors": monitors, **guard},
            reward={"functions": functions},
            critic="policy",
        )

    return build


def begin_alike() -> None:
    """The tiny stage's reward draws from Python's own generator."""
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)


def run(stage: TrainStage, place: Any) -> dict[str, float]:
    begin_alike()
    with MetricWriter.open(place.folder) as metrics:
        return train.run(stage, replace(place, metrics=metrics))


def coefficients(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["metrics"]["kl/coefficient"] for row in rows]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "guard.json").read_text())


def test_watching_changes_no_bit_of_the_training(stage, context, contents, tmp_path):
    held_out = {
        "steady": {"function": f"{tmp_path / 'signals.py'}:steady"},
        "letters": {"judge": f"{tmp_path / 'signals.py'}:first_letters"},
    }
    warned = {"divergence": "warn", "kl_budget": "warn"}
    places = context(), context()
    run(stage(None), places[0])
    run(stage({"signals": held_out, "monitors": warned}), places[1])
    plain, watched = (contents(place.folder) for place in places)
    seen = json.loads(watched.pop("guard.json"))
    probes = [json.loads(line) for line in watched.pop("probes.jsonl").splitlines()]
    values = [row.pop("values") for row in probes]
    assert probes == [json.loads(line) for line in plain.pop("probes.jsonl").splitlines()]
    assert watched == plain
    assert [value["length"] for value in values] == [row["length"] for row in probes]
    assert [row["step"] for row in seen["measurements"]] == [0, 2, 4, 6]
    measured = set(seen["measurements"][0]["means"])
    assert {"held_out/steady", "held_out/letters", "outliers", "kl", "openings"} <= measured
    # Compared with themselves, no answer is better.
    assert seen["measurements"][0]["means"]["held_out/letters"] == 0.5


def test_a_reward_model_is_asked_about_answers_of_equal_length(stage, context, tmp_path):
    """What it pays for a token is taken off, what it charges is not; disagreement is as scored."""
    place, signals = context(), {}
    rewarded = place.resolve(stage(None).reward.model, "model")
    for name, slope in (("flat", 0.0), ("fond", 0.25), ("averse", -0.25)):
        folder = Path(shutil.copytree(rewarded, tmp_path / name))
        scale = folder / "reward_scale.json"
        scale.write_text(json.dumps(json.loads(scale.read_text()) | {"length_slope": slope}))
        signals[name] = {"model": str(folder)}
    run(stage({"signals": signals, "monitors": {"divergence": "warn", "kl_budget": "off"}}), place)
    probes = (place.folder / "probes.jsonl").read_text().splitlines()
    values = [json.loads(line)["values"] for line in probes]
    assert len({value["length"] for value in values}) > 1
    # The same weights give the same scores: what differs is the rounding of one subtraction.
    for value in values:
        paid = 0.25 * value["length"]
        assert value["held_out/fond"] == pytest.approx(value["held_out/flat"] - paid, abs=1e-12)
        assert value["held_out/averse"] == value["held_out/flat"]
        assert value["disagreement"] == pytest.approx(0.0, abs=1e-12)


def test_a_stage_without_a_guard_is_described_as_before(stage):
    assert "guard" not in stage(None).to_json()


def test_divergence_is_reported_with_its_evidence(drifting, context):
    place = context()
    numbers = run(drifting("warn"), place)
    assert numbers["alarm/guard/divergence"] == 3
    assert numbers["alarm/guard/divergence/first"] == 2
    seen = record(place.folder)
    assert [alarm["step"] for alarm in seen["alarms"]] == [2, 4, 6]
    samples = seen["samples"][0]["samples"]
    assert len(samples) == 3
    assert set(samples[0]["values"]) == {"proxy", "held_out/falling"}
    assert not (place.folder / "guard").exists()


def test_raised_beta_is_that_of_the_rounds_that_follow(drifting, context):
    place = context()
    run(drifting("raise_beta", beta_factor=3.0), place)
    assert coefficients(place.folder) == pytest.approx([0.1, 0.1, 0.3, 0.3, 0.9, 0.9])


def test_stopped_training_ends_with_the_best_policy(drifting, context, contents):
    """The signal falls from the start: that is the policy before training."""
    from safetensors.torch import load_file

    place = context()
    numbers = run(drifting("stop"), place)
    assert numbers["guard/stopped_after"] == 2
    assert len(coefficients(place.folder)) == 2
    start = load_file(Path(drifting("stop").model) / "model.safetensors")
    end = load_file(place.folder / "model" / "model.safetensors")
    assert all((start[name] == end[name]).all() for name in start)


def test_rolling_back_raises_beta_each_time_and_then_stops(drifting, context):
    place = context()
    numbers = run(drifting("roll_back", max_roll_backs=2), place)
    assert coefficients(place.folder) == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.4, 0.4])
    assert numbers["guard/roll_backs"] == 2
    assert numbers["guard/stopped_after"] == 6
    seen = record(place.folder)
    assert [row["undone"] for row in seen["measurements"]] == [False, True, True, False]


@pytest.mark.parametrize("action", ["warn", "roll_back"])
def test_what_is_written_rings_again_as_it_did(action, drifting, context, write_manifest):
    place = context()
    chosen = drifting(action)
    run(chosen, place)
    write_manifest(place.folder, chosen)
    watched = read_watched(place.folder)
    again = [
        {"step": now.step, "action": action, **asdict(finding)}
        for now, findings in zip(watched.history, watched.findings(), strict=True)
        for finding in findings
    ]
    assert watched.looks == 3
    assert again == record(place.folder)["alarms"]


def attempt(stage: TrainStage, base: Any, root: Path, stop_at: int | None) -> dict[str, float]:
    """Runs from the newest checkpoint under `root`; SIGTERM comes in a round."""

    def hear(event: Any) -> None:
        if isinstance(event, StageProgress) and event.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    begin_alike()
    place = CheckpointPlace(
        root / "checkpoints", {"threads": 1, "versions": {}}, CheckpointConfig(seconds=0)
    )
    checkpoints = Checkpoints(place, base.folder, Progress("train", hear, every=0))
    with MetricWriter.open(base.folder) as metrics:
        checkpoints.count_in(metrics)
        here = replace(
            base,
            metrics=metrics,
            progress=Progress("train", hear, every=0),
            checkpoints=checkpoints,
        )
        return train.run(stage, here)


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_guarded_training_resumes_bit_for_bit(stop_at, stage, context, contents, tmp_path):
    """With roll-backs on both sides of the interruption."""
    held_out = {"steady": {"function": f"{tmp_path / 'signals.py'}:steady"}}
    # Any movement at all is beyond the budget.
    monitors = {"kl_budget": "roll_back", "kl_budget_limit": 1e-4}
    given = stage({"signals": held_out, "monitors": monitors, "max_roll_backs": 9})
    straight = context()
    expected = attempt(given, straight, tmp_path / "straight", None)
    assert expected["guard/roll_backs"] > 0
    broken, again = context(), context()
    with pytest.raises(StopRequested):
        attempt(given, broken, tmp_path / "broken", stop_at)
    assert attempt(given, again, tmp_path / "broken", None) == expected
    assert contents(again.folder) == contents(straight.folder)


def test_guard_needs_probes(stage):
    with pytest.raises(ValidationError, match="probes is not set"):
        stage({}, probes=None)


def test_raising_beta_needs_a_beta(tiny_recipe):
    row = tiny_recipe.stages["train"].to_json()
    guard = {"monitors": {"length": "raise_beta"}}
    with pytest.raises(ValidationError, match=r"length is 'raise_beta', which needs a fixed KL"):
        TrainStage.model_validate({**row, "guard": guard})
