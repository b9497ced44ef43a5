"""The command is stopped, killed and resumed, and ends as one that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tutelage.config.document import to_yaml

SAVED = "tutelage: interrupted: what is finished or saved is kept; run the same command again to"


def until_step(run, step, process):
    """Waits until the running stage has logged a step."""
    log = run / "stages" / ".train.partial" / "metrics.jsonl"
    while process.poll() is None:
        if log.exists() and len(log.read_bytes().splitlines()) >= step:
            return
        time.sleep(0.002)
    raise AssertionError(f"ended before step {step}: {process.communicate()}")


@pytest.fixture
def command(tiny_recipe, tmp_path):
    """Starts `tutelage` in a session of its own, with a stage that takes some seconds."""
    stages = {"train": tiny_recipe.stages["train"].to_json()}
    stages["train"]["ppo"]["steps"] = 60
    recipe = {**tiny_recipe.to_json(), "stages": stages}
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "tutelage", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_stopped_interrupted_and_killed_run_ends_as_one_that_was_not(command, contents, tmp_path):
    recipe, run, straight = tmp_path / "recipe.yaml", tmp_path / "run", tmp_path / "straight"
    begin = ("run", recipe, "--output", run, "--checkpoint.seconds", "0.2")

    stopped = command(*begin)
    until_step(run, 10, stopped)
    stopped.terminate()
    output, errors = stopped.communicate(timeout=120)
    assert (stopped.returncode, errors.startswith(SAVED)) == (143, True)
    assert "[train] saved at step " in output
    assert not list((run / "stages").iterdir())

    interrupted = command("resume", run)
    until_step(run, 25, interrupted)
    os.killpg(interrupted.pid, signal.SIGINT)
    output, errors = interrupted.communicate(timeout=120)
    assert (interrupted.returncode, errors.startswith(SAVED)) == (130, True)
    assert "[train] goes on from step " in output
    assert "[train] saved at step " in output

    killed = command(*begin)
    until_step(run, 40, killed)
    killed.kill()
    killed.communicate(timeout=120)
    # Its child ends by itself, and nobody else writes into the folder then.
    time.sleep(1)

    last = command("resume", run)
    undisturbed = command("run", recipe, "--output", straight)
    for process in (last, undisturbed):
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    stages = []
    for folder in (run, straight):
        found = contents(folder / "stages" / "train")
        del found["manifest.json"]
        stages.append(found)
    assert stages[0] == stages[1]
    rows = (run / "stages" / "train" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(60))
    assert not (run / "checkpoints").exists()


def test_folder_without_a_run_is_a_sentence(command, tmp_path):
    process = command("resume", tmp_path / "nothing")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "holds no run" in errors
