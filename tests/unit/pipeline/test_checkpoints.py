"""Checkpoints of stages in a run: used, bound to their configuration, removed when not needed."""

import json
import os
import resource
import signal

import pytest
import torch

from tutelage.config import CheckpointConfig, SFTStage
from tutelage.errors import CheckpointError, TrainingError
from tutelage.pipeline import checkpoints as saving
from tutelage.pipeline import run_recipe, run_stage
from tutelage.pipeline.checkpoints import CheckpointPlace, Checkpoints, StopRequested
from tutelage.tracking.manifest import load_manifest
from tutelage.tracking.metrics import MetricWriter
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


class FakeTime:
    """Seconds that pass only where the test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Costly:
    """Takes some seconds to be saved."""

    def __init__(self, time, seconds):
        self.time = time
        self.seconds = seconds
        self.saving = []

    def state_dict(self):
        self.saving.append(self.time.now)
        self.time.now += self.seconds
        return {}

    def load_state_dict(self, state):
        raise AssertionError("nothing was to be resumed")


def save_times(tmp_path, *, step, cost, steps, **settings) -> tuple[list[float], float]:
    """When a stage saved itself, and the seconds it took in all."""
    (tmp_path / "stage").mkdir()
    clock = FakeTime()
    part = Costly(clock, cost)
    checkpoints = Checkpoints(
        place(tmp_path, **settings),
        tmp_path / "stage",
        Progress("a", lambda _: None),
        clock=clock,
    )
    with checkpoints.track(part=part):
        for number in range(1, steps + 1):
            clock.now += step
            checkpoints.boundary(number)
    return part.saving, clock.now


def test_interval_is_the_least_time_between_two_checkpoints(tmp_path):
    saved, _ = save_times(tmp_path, step=7.0, cost=0.0, steps=40)
    # The first boundary after each full minute since the last one.
    assert saved == [63.0, 126.0, 189.0, 252.0]


def test_interval_of_zero_saves_at_every_boundary(tmp_path):
    saved, _ = save_times(tmp_path, step=1.0, cost=5.0, steps=4, seconds=0)
    assert len(saved) == 4


@pytest.mark.parametrize("cost", [0.5, 2.0, 3.0, 10.0, 60.0])
@pytest.mark.parametrize("step", [0.25, 20.0, 100.0])
def test_saving_takes_at_most_a_twentieth_of_the_time(tmp_path, cost, step):
    """At the default interval; a checkpoint taken is paid for by the steps that follow it."""
    steps = int(40 * max(60.0, 20 * cost) / step / 8)
    saved, total = save_times(tmp_path, step=step, cost=cost, steps=steps)
    assert len(saved) >= 3
    paid = saved[-1] - saved[0]
    assert (len(saved) - 1) * cost / paid <= 0.05
    assert len(saved) * cost / (total - saved[0] + 20 * cost) <= 0.05


def test_checkpoint_is_of_the_moment_of_its_boundary(tmp_path):
    """Saving is done before the next step begins: weights cannot change while they are written."""
    (tmp_path / "stage").mkdir()
    checkpoints = Checkpoints(
        place(tmp_path, seconds=0, keep=9), tmp_path / "stage", Progress("a", lambda _: None)
    )
    counted = []
    with checkpoints.track(counted=counted):
        for step in range(1, 5):
            counted.append(step)
            checkpoints.boundary(step)
            counted.append(-step)
    for step in range(1, 5):
        state = json.loads((tmp_path / "saved" / f"{step:08d}" / "state.json").read_text())
        assert state["counted"] == [sign * n for n in range(1, step) for sign in (1, -1)] + [step]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.fixture
def saved_twice(tmp_path):
    """Two checkpoints of a stage with a model, an optimiser and files of its own."""
    folder = tmp_path / "stage"
    (folder / "inner").mkdir(parents=True)
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    told = []

    def start():
        checkpoints = Checkpoints(
            place(tmp_path, seconds=0),
            tmp_path / f"stage{len(told)}" if told else folder,
            Progress("a", lambda event: told.append(event.text)),
        )
        return checkpoints, told

    checkpoints, _ = start()
    with MetricWriter.open(folder) as metrics:
        checkpoints.count_in(metrics)
        with checkpoints.track(model=model, totals={"optimiser": len(optimiser.param_groups)}):
            for step in (1, 2):
                metrics.log(step, {"sft/loss": 0.5})
                (folder / "inner" / "samples.jsonl").write_text("{}\n" * step)
                checkpoints.boundary(step)
    return tmp_path / "saved" / "00000002", start


FILES = [
    "files/inner/samples.jsonl",
    "files/metrics.jsonl",
    "manifest.json",
    "state.json",
    "tensors.safetensors",
]


def test_every_file_of_a_checkpoint_is_damaged_below(saved_twice):
    newest, _ = saved_twice
    files = [path.relative_to(newest).as_posix() for path in newest.rglob("*") if path.is_file()]
    assert sorted(files) == FILES


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [flip, truncate, os.unlink])
def test_each_damaged_file_is_named_and_the_checkpoint_before_is_used(saved_twice, file, damage):
    newest, start = saved_twice
    damage(newest / file)
    checkpoints, told = start()
    assert checkpoints.resumed_at == 1
    assert f"00000002/{file} " in told[0]
    assert told[0].endswith("; the checkpoint of step 1 is used instead")


@pytest.mark.parametrize("file", FILES)
def test_each_file_damaged_everywhere_ends_the_stage_by_exit_code_4(saved_twice, file):
    newest, start = saved_twice
    for step in ("00000001", "00000002"):
        flip(newest.with_name(step) / file)
    with pytest.raises(CheckpointError, match="no older checkpoint is undamaged") as caught:
        start()
    assert f"00000002/{file} " in str(caught.value)
    assert caught.value.exit_code == 4


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


@pytest.mark.parametrize("now", ["aa", "none"])
def test_operations_that_are_no_longer_compiled_are_reported(tmp_path, monkeypatch, now):
    (tmp_path / "stage").mkdir()
    events = []
    for compiled in ("aa", now):
        monkeypatch.setattr(saving, "version", lambda compiled=compiled: compiled)
        progress = Progress("a", events.append)
        checkpoints = Checkpoints(place(tmp_path, seconds=0), tmp_path / "stage", progress)
        with checkpoints.track(part=[]):
            checkpoints.boundary(checkpoints.resumed_at + 1)
    told = [event.text for event in events if isinstance(event, StageMessage)]
    changed = [
        "compiled operations were aa when it was saved and are none now: numbers may differ in "
        "their last digits from those of an uninterrupted run"
    ]
    assert told == ["goes on from step 1", *changed * (now != "aa")]


def test_a_stage_without_a_state_compiles_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "version", lambda: pytest.fail("compiled"))
    (tmp_path / "stage").mkdir()
    checkpoints = Checkpoints(place(tmp_path), tmp_path / "stage", Progress("a", lambda _: None))
    assert checkpoints.resumed_at == 0
