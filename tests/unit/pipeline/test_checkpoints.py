"""Checkpoints of stages in a run: used, bound to their configuration, removed when not needed."""

import json
import os
import resource
import signal
import time

import pytest

from tutelage.config import CheckpointConfig, SFTStage
from tutelage.errors import CheckpointError, TrainingError
from tutelage.pipeline import run_recipe, run_stage
from tutelage.pipeline.checkpoints import CheckpointPlace, Checkpoints, StopRequested
from tutelage.tracking.manifest import load_manifest
from tutelage.tracking.progress import Progress, StageMessage

COUNT = {"model": "org/count"}


@pytest.fixture
def run(tmp_path, registry):
    """Runs a recipe that saves itself at every boundary."""

    def go(recipe, **options):
        often = recipe.model_copy(update={"checkpoint": CheckpointConfig(seconds=0)})
        return run_recipe(often, tmp_path / "run", registry=registry, **options)

    return go


@pytest.fixture
def failed(run, recipe):
    """A run whose stage has failed after three of five steps."""
    with pytest.raises(TrainingError, match="three is enough"):
        run(recipe(a=COUNT))


def test_failed_stage_goes_on_from_its_checkpoint(failed, run, recipe, tmp_path, capsys):
    saved = tmp_path / "run" / "checkpoints" / "a"
    assert [path.name for path in sorted(saved.glob("*/*"))] == ["00000002", "00000003"]
    result = run(recipe(a=COUNT))
    manifest = load_manifest(result.stage("a"))
    assert manifest.metrics["began"] == 3
    assert manifest.metrics["sum"] == 0 + 1 + 2 + 3 + 4
    rows = (result.stage("a") / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert "[a] goes on from step 3" in capsys.readouterr().out
    # A finished stage needs no checkpoints.
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_time_of_earlier_processes_counts(failed, run, recipe, tmp_path):
    (newest,) = tmp_path.glob("run/checkpoints/a/*/00000003")
    earlier = json.loads((newest / "manifest.json").read_text())["about"]["seconds"]
    manifest = load_manifest(run(recipe(a=COUNT)).stage("a"))
    assert manifest.seconds >= earlier


def test_changed_configuration_begins_anew_and_says_why(failed, run, recipe, tmp_path, capsys):
    other = {**COUNT, "epochs": 2.0}
    result = run(recipe(a=other))
    assert load_manifest(result.stage("a")).metrics["began"] == 0
    expected = (
        "[a] begins anew, not from the checkpoint of step 3: epochs changed in its configuration"
    )
    assert expected in capsys.readouterr().out
    # The stage is finished, so what was saved under the old configuration is gone too.
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_checkpoints_of_the_old_configuration_wait(failed, run, recipe, tmp_path):
    (tmp_path / "mark").unlink()
    with pytest.raises(TrainingError):
        run(recipe(a={**COUNT, "epochs": 2.0}))
    result = run(recipe(a=COUNT))
    assert load_manifest(result.stage("a")).metrics["began"] == 3


def test_threads_and_checkpoint_settings_may_change(failed, run, recipe, capsys):
    changed = recipe(a=COUNT).model_copy(update={"threads": 1, "parallel": 1})
    assert load_manifest(run(changed).stage("a")).metrics["began"] == 3
    assert "threads were 2 when it was saved and are 1 now" in capsys.readouterr().out


def test_damaged_checkpoint_is_named_and_the_one_before_is_used(
    failed, run, recipe, tmp_path, capsys
):
    (newest,) = tmp_path.glob("run/checkpoints/a/*/00000003")
    (newest / "state.json").write_text("{}")
    result = run(recipe(a=COUNT))
    assert load_manifest(result.stage("a")).metrics["began"] == 2
    said = capsys.readouterr().out
    assert "00000003/state.json is damaged" in said
    assert "the checkpoint of step 2 is used instead" in said


def test_stage_does_not_begin_anew_when_all_checkpoints_are_damaged(failed, run, recipe, tmp_path):
    for path in tmp_path.glob("run/checkpoints/a/*/*/state.json"):
        path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"stage a: .*state\.json is damaged.*delete"):
        run(recipe(a=COUNT))


def test_stage_on_its_own_goes_on_too(registry, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("text")
    stage = SFTStage(model="org/count", data=(str(text),))

    def go():
        return run_stage(stage, tmp_path / "out", display=False, registry=registry)

    with pytest.raises(TrainingError, match="three is enough"):
        go()
    # By default a stage of some milliseconds has no time to save itself.
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "mark"}
    assert load_manifest(go()).metrics["began"] == 0


def place(tmp_path, **settings) -> CheckpointPlace:
    about = {"threads": 1, "versions": {}}
    return CheckpointPlace(tmp_path / "saved", about, CheckpointConfig(**settings))


def steps_saved(tmp_path, count: int = 20, *, cost: float = 0.0, **settings) -> list[int]:
    """The steps at which a stage of 20 steps of 5 ms saves itself."""
    (tmp_path / "stage").mkdir()
    checkpoints = Checkpoints(
        place(tmp_path, keep=1000, **settings), tmp_path / "stage", Progress("a", lambda _: None)
    )

    class Slow:
        def state_dict(self):
            time.sleep(cost)
            return {}

        def load_state_dict(self, state):
            raise AssertionError("nothing was to be resumed")

    with checkpoints.track(slow=Slow()):
        for step in range(1, count + 1):
            time.sleep(0.005)
            checkpoints.boundary(step)
    return [int(path.name) for path in sorted((tmp_path / "saved").glob("0*"))]


def test_interval_is_the_least_time_between_two_checkpoints(tmp_path):
    found = steps_saved(tmp_path, seconds=0.03)
    assert 1 <= len(found) <= 4
    assert 1 not in found


def test_interval_of_zero_saves_at_every_boundary(tmp_path):
    assert steps_saved(tmp_path, count=5, seconds=0) == [1, 2, 3, 4, 5]


def test_saving_takes_at_most_a_twentieth_of_the_time(tmp_path):
    # 50 ms to save: the next one may come a second later, long after the last of 20 steps.
    assert len(steps_saved(tmp_path, seconds=0.01, cost=0.05)) == 1


def test_full_disk_is_reported_and_the_stage_goes_on(tmp_path):
    said = []
    (tmp_path / "stage").mkdir()

    def hear(event):
        if isinstance(event, StageMessage):
            said.append(event.text)

    checkpoints = Checkpoints(
        place(tmp_path, seconds=0, keep=1), tmp_path / "stage", Progress("a", hear)
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with checkpoints.track(counted=[1]):
            checkpoints.boundary(1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
            checkpoints.boundary(2)
            assert [path.name for path in (tmp_path / "saved").iterdir()] == ["00000001"]
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            checkpoints.boundary(3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    (message,) = said
    assert message.startswith("step 2 could not be saved, the stage goes on: cannot write")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["00000003"]


def test_sigterm_saves_at_the_next_boundary_and_ends_the_stage(tmp_path):
    (tmp_path / "stage").mkdir()
    checkpoints = Checkpoints(place(tmp_path), tmp_path / "stage", Progress("a", lambda _: None))
    before = signal.getsignal(signal.SIGTERM)
    reached = []

    def count():
        with checkpoints.track(reached=reached):
            for step in range(1, 5):
                if step == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                reached.append(step)
                checkpoints.boundary(step)

    with pytest.raises(StopRequested) as stop:
        count()
    assert stop.value.step == 3
    assert reached == [1, 2, 3]
    assert signal.getsignal(signal.SIGTERM) == before
    again = Checkpoints(place(tmp_path), tmp_path / "stage", Progress("a", lambda _: None))
    restored = []
    with again.track(reached=restored):
        assert (again.resumed_at, restored) == (3, [1, 2, 3])
