"""The comparison of ensembles: all ways are alike but for the reward, and the table is right."""

import json
import math
from pathlib import Path

import ensembles
import numpy as np
import pytest

from tutelage.config import Recipe, TrainStage, load_recipe

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("world", "base", "sft", "samples", "people")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(ROOT / "recipes" / "ensembles.yaml")


def test_shared_stages_are_those_of_the_gates(recipe):
    gates = load_recipe(ROOT / "recipes" / "gates.yaml")
    different = [name for name in SHARED if recipe.stages[name] != gates.stages[name]]
    assert not different, f"copy these stages from gates.yaml to ensembles.yaml: {different}"


def test_trainings_differ_in_their_reward_alone(recipe):
    trained = {n: s.to_json() for n, s in recipe.stages.items() if isinstance(s, TrainStage)}
    rewards = [stage.pop("reward") for stage in trained.values()]
    assert len(trained) == 6
    assert all(stage == trained["single"] for stage in trained.values())
    assert all(reward not in rewards[:i] for i, reward in enumerate(rewards))
    assert set(recipe.stages["evaluation"].probes) == set(trained)


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    """Two seeds; gold of `mean` is that of `single` and 0.1, or 0.3, at the same KL."""
    for seed, more in enumerate((0.1, 0.3)):
        folder = tmp_path / f"seed{seed}" / "stages" / "evaluation"
        folder.mkdir(parents=True)
        probes = [
            {"stage": stage, "measures": {"kl": {"mean": kl}, "gold": {"mean": gold + extra}}}
            for stage, extra in (("single", 0.0), ("mean", more))
            for kl, gold in ((-1e-6, 0.0), (1.0, 0.5), (9.0, 0.1 * seed))
        ]
        (folder / "evaluation.json").write_text(json.dumps({"checkpoints": probes}))
    return [tmp_path / "seed0", tmp_path / "seed1"]


def test_gold_at_a_kl_is_interpolated_in_its_root(runs):
    """At KL 5, sqrt(5) - 1 = 1.236 of the way of 2 from 0.5 down to 0, and to 0.1."""
    found = ensembles.figures(runs)["single"]
    share = (math.sqrt(5.0) - 1.0) / 2.0
    assert found["gold at KL 5"] == pytest.approx([0.5 - 0.5 * share, 0.5 - 0.4 * share])
    assert np.isnan(found["gold at KL 10"]).all()
    assert found["best"] == pytest.approx([0.5, 0.5])
    assert found["end"] == pytest.approx([0.0, 0.1])


def test_differences_are_paired_by_seed(runs, capsys):
    """0.1 and 0.3: mean 0.2, standard error 0.1, times 12.706 at one degree of freedom."""
    ensembles.main([str(run) for run in runs])
    printed = capsys.readouterr().out
    gold, difference = printed.split("| difference to single |")
    assert "| single | " in gold
    assert "| single | " not in difference
    row = next(line for line in difference.splitlines() if line.startswith("| mean |"))
    assert row.split(" | ")[1] == "+0.20 ± 1.27"
    assert " | - | " in row  # No seed reaches a KL of 10.


def test_a_way_may_be_missing_from_some_runs(runs, capsys):
    record = runs[1] / "stages" / "evaluation" / "evaluation.json"
    probes = [
        row for row in json.loads(record.read_text())["checkpoints"] if row["stage"] != "mean"
    ]
    record.write_text(json.dumps({"checkpoints": probes}))
    ensembles.main([str(run) for run in runs])
    row = capsys.readouterr().out.splitlines()[-2]
    assert row.startswith("| mean | +0.10 (of 1) |")
