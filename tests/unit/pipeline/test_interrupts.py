"""Signals sent to a process that runs a recipe, as a terminal or a scheduler sends them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tutelage.config import CheckpointConfig
from tutelage.config.document import to_yaml
from tutelage.pipeline import run_recipe
from tutelage.pipeline.interrupts import Interrupts, TimeLimitReached

PROGRAM = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from tutelage.cli.main import guard
from tutelage.config import load_recipe
from tutelage.pipeline import run_recipe
from tutelage.pipeline.registry import Registry

# No main guard on purpose: children must not start this script anew.
recipe = load_recipe(sys.argv[2])
registry = Registry({"sft": "fake_stage"}, preload=tuple(sys.argv[4:]))
sys.exit(guard(lambda: run_recipe(recipe, Path(sys.argv[3]), registry=registry)))
"""


@pytest.fixture
def start(tmp_path, recipe):
    """Starts a recipe in a session of its own; returns its process once `mark` is there."""
    arguments = [Path(__file__).parent, tmp_path / "recipe.yaml", tmp_path / "run"]
    mark = tmp_path / "mark"
    started = []

    def go(*preload, action="slow"):
        built = recipe(a=["inputs/text"], b={"model": f"org/{action}", "data": ["a"]})
        (tmp_path / "recipe.yaml").write_text(to_yaml(built.to_json()))
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, arguments), *preload],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "SLOW_IMPORT_MARK": str(mark)},
        )
        started.append(process)
        wait_until(lambda: mark.exists() and mark.read_text(), "the mark is there")
        return process

    yield go
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def slow(start):
    """A run whose second stage has begun."""
    return start()


def wait_until(condition, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s until {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    # A child that nobody has waited for yet is dead all the same.
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("number", "code", "send"),
    [
        pytest.param(signal.SIGINT, 130, os.killpg, id="Ctrl-C reaches every process"),
        pytest.param(signal.SIGTERM, 143, os.kill, id="SIGTERM reaches the parent alone"),
    ],
)
def test_interrupted_run_leaves_nothing_partial_and_goes_on(
    slow, tmp_path, recipe, registry, number, code, send
):
    child = int((tmp_path / "mark").read_text())
    send(slow.pid, number)
    _, errors = slow.communicate(timeout=60)
    assert slow.returncode == code
    assert errors == (
        "tutelage: interrupted: what is finished or saved is kept; "
        "run the same command again to continue\n"
    )
    assert {path.name for path in (tmp_path / "run" / "stages").iterdir()} == {"a"}
    assert not is_alive(child)
    result = run_recipe(
        recipe(a=["inputs/text"], b=["a"]), tmp_path / "run", display=False, registry=registry
    )
    assert (result.skipped, result.executed) == (("a",), ("b",))


def test_interrupt_while_the_server_imports_its_modules_does_not_wait(start, tmp_path):
    process = start("slow_import")
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in output + errors
    # On a fast machine a stage may have finished before the interrupt came: that is kept.
    left = [path.name for path in (tmp_path / "run" / "stages").iterdir()]
    assert not [name for name in left if name.startswith(".")]


def alive_in_session(session: int) -> list[int]:
    """Every process that a run has started, its servers and whatever they started included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and is_alive(int(entry.name)):
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize(
    "action",
    [
        pytest.param("slow", id="asleep"),
        pytest.param("hold", id="inside a library that never runs Python"),
    ],
)
def test_no_process_outlives_a_parent_that_is_killed(start, tmp_path, recipe, registry, action):
    parent = start(action=action)
    child = int((tmp_path / "mark").read_text())
    assert {parent.pid, child} < set(alive_in_session(parent.pid))
    parent.kill()
    parent.communicate(timeout=60)
    wait_until(lambda: not alive_in_session(parent.pid), "all processes are gone", seconds=5)
    result = run_recipe(
        recipe(a=["inputs/text"], b=["a"]), tmp_path / "run", display=False, registry=registry
    )
    assert (result.skipped, result.executed) == (("a",), ("b",))
    assert {path.name for path in (tmp_path / "run" / "stages").iterdir()} == {"a", "b"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_time_limit_saves_stages_that_reach_a_boundary_and_stops_the_others(
    recipe, registry, tmp_path, capsys
):
    both = recipe(a="steps", b="stuck").model_copy(
        update={"checkpoint": CheckpointConfig(grace=2.0)}
    )
    # Checkpoints need torch, whose import takes seconds, and on a busy machine many: a limit that
    # came before both stages had begun shows nothing, and is tried again with more time.
    for limit in (15.0, 60.0, 240.0):
        place = tmp_path / f"{limit:.0f}"
        began = time.monotonic()
        with pytest.raises(TimeLimitReached, match="time limit reached: what is finished or saved"):
            run_recipe(both, place / "run", registry=registry, time_limit=limit)
        took, said = time.monotonic() - began, capsys.readouterr().out
        marks = [place / "mark-a", place / "mark-b"]
        if all(mark.exists() for mark in marks):
            break
    assert limit <= took < limit + 45.0
    assert re.search(r"\[a\] saved at step \d+", said)
    assert "[b] saved" not in said
    assert not any(is_alive(int(mark.read_text())) for mark in marks)
    saves = (place / "run" / "checkpoints").glob("a/*/*")
    saved = max(saves, key=lambda path: int(path.name))
    state = json.loads((saved / "state.json").read_text())
    assert state["counted"] == list(range(int(saved.name)))
    assert not list((place / "run" / "stages").iterdir())


def test_grace_is_thirty_seconds_by_default():
    assert CheckpointConfig().grace == 30.0


def test_time_limit_is_counted_from_the_beginning():
    now = [100.0]
    interrupts = Interrupts(60.0, clock=lambda: now[0])
    now[0] = 159.9
    interrupts.check()
    now[0] = 160.0
    with pytest.raises(TimeLimitReached):
        interrupts.check()
    Interrupts(None, clock=lambda: 1e9).check()
