"""Stages killed at random moments: each ends as if nothing had happened.

KILLS is the number of kills in all, 20 unless the environment says otherwise (`make torture`).
"""

import json
import os
import subprocess
import sys

import pytest

from tutelage.config.document import to_yaml

KILLS = int(os.environ.get("KILLS", "20"))
KINDS = {"pretrain", "sft", "sample", "reward", "dpo", "train"}

PROGRAM = """
import json, random, sys, time
from pathlib import Path

from tutelage.config import CheckpointConfig, load_recipe
from tutelage.pipeline.checkpoints import CheckpointPlace
from tutelage.pipeline.references import References
from tutelage.pipeline.registry import STAGES
from tutelage.pipeline.worker import Succeeded, Task, start_server, start_worker
from tutelage.tracking.checkpoint import CheckpointStore

ABOUT = {"threads": 1, "versions": {}}


def live(stage, run, life, seconds):
    folder = run / f"life{life}"
    folder.mkdir(parents=True)
    place = CheckpointPlace(run / "checkpoints", ABOUT, CheckpointConfig(seconds=0, keep=1))
    task = Task(stage.kind, STAGES.modules[stage.kind], stage, folder, 5, 1, References(), place,
                run / "log.txt", run / "error.txt")
    process, connection = start_worker(server, task)
    deadline = time.monotonic() + seconds
    outcome = None
    while time.monotonic() < deadline:
        if connection.poll(max(0.0, deadline - time.monotonic())):
            try:
                outcome = connection.recv()
            except EOFError:
                break
    acknowledged = newest(run)
    process.kill()
    process.join()
    if outcome is not None and "Failed" in type(outcome).__name__:
        raise SystemExit(f"{stage.kind} failed: {outcome}")
    if isinstance(outcome, Succeeded):
        return folder
    # Every file is as its manifest says, and nothing that was complete is lost.
    found = CheckpointStore(run / "checkpoints", keep=1).newest(fail)
    assert (found.step if found else 0) >= acknowledged, (found, acknowledged)
    return None


def newest(run):
    names = [path.name for path in (run / "checkpoints").glob("[0-9]*")]
    return max(map(int, names), default=0)


def fail(message):
    raise SystemExit(f"a kill has damaged a checkpoint: {message}")


recipe, root, kills = load_recipe(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
server = start_server((*STAGES.preload, "torch.utils.tensorboard.writer"))
rng = random.Random(int(sys.argv[4]))
ends, kills_of, resumed = {}, {}, 0
for kind, stage in recipe.stages.items():
    live(stage, root / "warm" / kind, 0, 600.0)
    began = time.monotonic()
    ends[kind] = [str(live(stage, root / "straight" / kind, 0, 600.0))]
    whole, killed = time.monotonic() - began, 0
    while killed < kills // len(recipe.stages):
        run, life = root / f"{kind}{len(ends[kind])}", 0
        # Longer from life to life: a machine that has become slower still comes to an end.
        while not (end := live(stage, run, life, rng.uniform(0.0, whole * (1 + life / 8)))):
            life, killed = life + 1, killed + 1
            resumed += newest(run) > 0
        ends[kind].append(str(end))
    kills_of[kind] = killed
print(json.dumps({"ends": ends, "kills": kills_of, "resumed": resumed}))
"""


@pytest.mark.slow
@pytest.mark.timeout(60 * KILLS)
def test_stages_killed_at_random_moments_end_as_if_nothing_had_happened(
    tiny_recipe, contents, tmp_path
):
    (tmp_path / "recipe.yaml").write_text(to_yaml(tiny_recipe.to_json()))
    arguments = [str(tmp_path / "recipe.yaml"), str(tmp_path / "runs"), str(KILLS), "0"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    # Otherwise all kills came before anything was saved, and nothing was resumed.
    assert told["resumed"] >= KILLS // 10
    assert told["ends"].keys() >= KINDS
    print(f"{told['kills']} kills, {told['resumed']} of them after something had been saved")
    for kind in told["ends"]:
        straight, *others = map(contents, map(tmp_path.joinpath, told["ends"][kind]))
        assert others, kind
        for other in others:
            assert other == straight
