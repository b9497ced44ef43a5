"""Stages that hang: found, shown by their stacks, named and stopped."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tutelage.config.document import to_yaml
from tutelage.errors import StallError
from tutelage.pipeline import run_recipe
from tutelage.pipeline.watchdog import Watchdog


@pytest.fixture
def clock():
    """A clock that the test winds on: `clock.now += 3`."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


def pass_seconds(clock, watchdog, seconds):
    found = []
    for _ in range(seconds):
        clock.now += 1.0
        found = watchdog.tick()
    return found


def test_stage_is_found_once_its_silence_is_as_long_as_allowed(clock):
    watchdog = Watchdog(10.0, clock=clock)
    watchdog.heard("a")
    watchdog.heard("b")
    assert pass_seconds(clock, watchdog, 6) == []
    watchdog.heard("b", 7)
    assert pass_seconds(clock, watchdog, 4) == ["a"]
    assert pass_seconds(clock, watchdog, 6) == ["a", "b"]
    assert watchdog.last_report("a") == "it has not reported any step"
    assert watchdog.last_report("b") == "it last reported step 7"
    watchdog.forget("a")
    assert watchdog.tick() == ["b"]


def test_message_without_a_step_counts_and_keeps_the_step(clock):
    watchdog = Watchdog(10.0, clock=clock)
    watchdog.heard("a", 3)
    pass_seconds(clock, watchdog, 9)
    watchdog.heard("a")
    assert pass_seconds(clock, watchdog, 9) == []
    assert watchdog.last_report("a") == "it last reported step 3"


def test_time_in_which_everything_was_suspended_does_not_count(clock):
    watchdog = Watchdog(10.0, clock=clock)
    watchdog.heard("a")
    clock.now += 3600.0
    assert watchdog.tick() == []
    assert pass_seconds(clock, watchdog, 5) == ["a"]


def test_time_before_a_stage_begins_does_not_count(clock):
    watchdog = Watchdog(4.0, clock=clock)
    clock.now += 13.0
    watchdog.heard("a")
    assert watchdog.tick() == []
    assert pass_seconds(clock, watchdog, 3) == []
    assert pass_seconds(clock, watchdog, 1) == ["a"]


def test_limit_of_zero_waits_for_ever(clock):
    watchdog = Watchdog(0.0, clock=clock)
    watchdog.heard("a")
    assert pass_seconds(clock, watchdog, 1000) == []


def test_default_is_half_an_hour(recipe):
    assert recipe(a="ok").stall_timeout == 1800.0


@pytest.fixture
def run(tmp_path, registry):
    """Runs a recipe of fake stages."""
    return lambda recipe: run_recipe(recipe, tmp_path / "run", registry=registry)


def impatient(recipe, seconds):
    return recipe.model_copy(update={"stall_timeout": seconds})


def test_silent_stage_is_shown_named_and_stopped(run, recipe, tmp_path):
    with pytest.raises(StallError) as caught:
        run(impatient(recipe(a="silent"), 2.0))
    log = tmp_path / "run" / "logs" / "a.txt"
    assert caught.value.exit_code == 5
    assert str(caught.value).startswith(
        "stage a made no progress for 2.0 s, it last reported step 3; the stacks of its threads "
        f"are in {log}. Run again: it goes on from its newest checkpoint."
    )
    stacks = log.read_text()
    assert "in _silent" in stacks
    # Of every thread: here also of the one that waits for the parent's end.
    assert stacks.count("most recent call first") >= 2
    assert not list((tmp_path / "run" / "stages").iterdir())


def test_stage_that_holds_the_interpreter_is_shown_too(run, recipe, tmp_path):
    with pytest.raises(StallError, match="stage a made no progress"):
        run(impatient(recipe(a="hold"), 2.0))
    assert "in _hold" in (tmp_path / "run" / "logs" / "a.txt").read_text()
    pid = int((tmp_path / "mark").read_text())
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}/exe") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}/exe")


PROGRAM = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from tutelage.cli.main import guard
from tutelage.config import load_recipe
from tutelage.pipeline import run_recipe
from tutelage.pipeline.registry import Registry

registry = Registry({"sft": "fake_stage"}, preload=("tutelage.trainers.state",))
recipe = load_recipe(sys.argv[2])
sys.exit(guard(lambda: run_recipe(recipe, Path(sys.argv[3]), registry=registry)))
"""
"""In a process of its own: its fork server has torch loaded, whose import is silent for seconds."""


@pytest.mark.slow
def test_other_stages_save_themselves_when_one_hangs(recipe, tmp_path):
    two = impatient(recipe(a="silent", b="steps"), 5.0)
    (tmp_path / "recipe.yaml").write_text(to_yaml(two.to_json()))
    arguments = [Path(__file__).parent, tmp_path / "recipe.yaml", tmp_path / "run"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 5
    assert done.stderr.startswith("tutelage: stage a made no progress for 5.0 s, it last reported")
    assert "[b] saved at step " in done.stdout
