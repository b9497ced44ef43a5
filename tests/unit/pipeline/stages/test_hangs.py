"""Every kind of stage can hang; each is found, named, and shown by its stacks.

A named pipe that nobody writes into hangs whoever opens it. It stands for a network drive that
does not answer.
"""

import json
import os
import re
import subprocess
import sys

import pytest

from tutelage.config import Recipe
from tutelage.config.schema import stage_kinds

STALL = 3.0

HANGING_REWARD = """
import time

calls = 0

def hang(prompt, completion):
    global calls
    calls += 1
    if calls > 20:
        time.sleep(60)
    return 0.0
"""


@pytest.fixture
def hanging(tiny_recipe, tmp_path):
    """`hanging(kind)`: a recipe with one stage of that kind, which hangs."""
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    (tmp_path / "slow.py").write_text(HANGING_REWARD)
    known = {name: stage.to_json() for name, stage in tiny_recipe.stages.items()}
    model, where = known["sft"]["model"], str(pipe)
    changes = {
        "pretrain": {"data": [where]},
        "sft": {"data": [where]},
        "sample": {"prompts": where},
        "reward": {"phases": [{"preferences": [where]}]},
        "dpo": {"preferences": [where]},
        "select": {"samples": where, "reward": model},
        "train": {"reward": {"functions": {f"{tmp_path / 'slow.py'}:hang": 1.0}}},
        "choose": {"samples": [where], "budget": 100},
        "label": {"samples": where, "annotator": "judge"},
        "revise": {"samples": where, "constitution": "legal", "writer": "helpdesk"},
        "prefer": {"samples": where, "constitution": "legal", "writer": "helpdesk"},
        "split": {"data": [where], "parts": {"all": 1.0}},
        "pairs": {"data": [where]},
        "openings": {"data": [where]},
        "evaluate": {"models": {"m": model}, "baseline": "m", "prompts": where},
    }
    changes["train"]["critic"] = "policy"

    def build(kind):
        stage = {"kind": kind, **known.get(kind, {}), **changes[kind]}
        return Recipe.model_validate(
            {
                "name": kind,
                "threads": 1,
                "stall_timeout": STALL,
                "trackers": {"tensorboard": False},
                "stages": {kind: stage},
            }
        )

    return build


PROGRAM = """
import json, sys
from pathlib import Path

from tutelage.config import Recipe
from tutelage.errors import StallError
from tutelage.pipeline import run_recipe
from tutelage.pipeline.registry import STAGES, Registry

# Imports would take longer than a stage may be silent here.
stages = [module for kind, module in STAGES.modules.items() if kind != "evaluate"]
stages += ["tutelage.rewards", "tutelage.data.loaders", "tutelage.evaluation.compare"]
registry = Registry(STAGES.modules, (*STAGES.preload, *stages))
root, told = Path(sys.argv[2]), {}
for row in json.loads(Path(sys.argv[1]).read_text()):
    recipe = Recipe.model_validate(row)
    try:
        run_recipe(recipe, root / recipe.name, display=False, registry=registry)
    except StallError as error:
        told[recipe.name] = str(error)
print(json.dumps(told))
"""
"""In a process of its own, because a process has one fork server: this one has torch loaded."""

PLACES = {
    "pretrain": "jsonl.py",
    "sft": "jsonl.py",
    "sample": "jsonl.py",
    "reward": "jsonl.py",
    "dpo": "jsonl.py",
    "select": "jsonl.py",
    "train": "function_process.py",
    "choose": "jsonl.py",
    "label": "jsonl.py",
    "revise": "jsonl.py",
    "prefer": "jsonl.py",
    "split": "jsonl.py",
    "pairs": "jsonl.py",
    "openings": "jsonl.py",
    "evaluate": "jsonl.py",
}
"""The file in which each kind of stage hangs, or waits for a function that does. The helpdesk
world alone reads nothing."""

TRIED = sorted(PLACES) if os.environ.get("HANGS") == "all" else ["pretrain", "train"]
"""Each costs the time after which it is given up, so all of them are tried by `make torture`."""


def test_every_kind_of_stage_that_reads_something_is_tried():
    assert {*PLACES, "helpdesk", "arithmetic"} == stage_kinds().keys()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_stage_that_hangs_is_named_and_shown(hanging, tmp_path):
    recipes, runs = tmp_path / "recipes.json", tmp_path / "runs"
    recipes.write_text(json.dumps([hanging(kind).to_json() for kind in TRIED]))
    command = [sys.executable, "-c", PROGRAM, str(recipes), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sorted(told) == TRIED
    for kind in TRIED:
        assert told[kind].startswith(f"stage {kind} made no progress for {STALL:.1f} s, it ")
        # Eight completions a round: the third does not come to its end. Steps that follow each
        # other within a fifth of a second are not all reported.
        step = "last reported step [12];" if kind == "train" else "has not reported any step;"
        assert re.search(step, told[kind])
        stacks = (runs / kind / "logs" / f"{kind}.txt").read_text()
        assert f"stages/{kind}.py" in stacks, kind
        assert PLACES[kind] in stacks, kind
