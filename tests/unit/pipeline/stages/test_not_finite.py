"""A reward that overflows in the middle of a real run: the end, the evidence, and going on."""

import json
import re
from pathlib import Path

import pytest

from tutelage.cli.main import main
from tutelage.config import Recipe
from tutelage.config.document import to_yaml
from tutelage.tracking.checkpoint import CheckpointStore

GOOD_ROUNDS, ROWS = 3, 8

OVERFLOWS = f"""
from pathlib import Path

calls = 0

def overflows(prompt, completion):
    global calls
    calls += 1
    broken = Path(__file__).with_name("broken").exists() and calls > {GOOD_ROUNDS * ROWS}
    # Finite, but its square is not in float32.
    return 1e30 if broken else float(len(completion.text))
"""


@pytest.mark.slow
def test_run_ends_with_its_evidence_and_goes_on_from_before(tiny_recipe, tmp_path, capsys):
    (tmp_path / "overflows.py").write_text(OVERFLOWS)
    (tmp_path / "broken").write_text("")
    settings = tiny_recipe.to_json()
    train = settings["stages"]["train"]
    train["reward"]["functions"] = {f"{tmp_path / 'overflows.py'}:overflows": 1.0}
    train["ppo"]["steps"] = 6
    recipe = Recipe.model_validate(
        {**settings, "stages": {"train": train}, "checkpoint": {"seconds": 0}}
    )
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe.to_json()))
    command = ["run", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "run")]

    assert main(command) == 3
    said = capsys.readouterr().err
    assert "3 of 21 optimiser steps, 3 of them in a row, were skipped" in said
    named = Path(re.search(r"the rows are in (\S+\.json)", said)[1])
    assert named == tmp_path / "run" / "errors" / "train" / "00000021-gradient.json"
    found = json.loads(named.read_text())
    assert found["gradient_norms"]["value"] in ("inf", "nan")
    assert {row["prompt_id"] for row in found["rows"]} <= {str(i) for i in range(24)}
    assert all(row["score"] > 1e29 and len(row["values"]) for row in found["rows"])
    (folder,) = (tmp_path / "run" / "checkpoints" / "train").iterdir()
    assert CheckpointStore(folder, keep=2).newest(pytest.fail).step == GOOD_ROUNDS

    (tmp_path / "broken").unlink()
    assert main(command) == 0
    assert f"goes on from step {GOOD_ROUNDS}" in capsys.readouterr().out
    rows = (tmp_path / "run" / "stages" / "train" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["metrics"]["train/not_finite"] for row in rows] == [0.0] * 6
