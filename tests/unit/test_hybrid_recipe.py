"""The experiment of docs/hybrid.md begins where the quickstart does, and its tables are its own."""

import json
from dataclasses import asdict
from pathlib import Path

import hybrid
import pytest
from hybrid import BUDGET, CURVE, STRATEGIES, Measured

from tutelage.config import ChooseStage, LabelStage, Recipe, load_recipe
from tutelage.feedback.routing import Costs

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("world", "base", "sft", "samples")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(ROOT / "recipes" / "hybrid.yaml")


def test_shared_stages_are_the_quickstarts(recipe):
    quickstart = load_recipe(ROOT / "recipes" / "quickstart.yaml")
    different = [name for name in SHARED if recipe.stages[name] != quickstart.stages[name]]
    assert not different, f"copy these stages from quickstart.yaml to hybrid.yaml: {different}"
    assert (recipe.seed, recipe.threads) == (quickstart.seed, quickstart.threads)


def test_people_and_the_judge_cost_the_same_in_the_recipe(recipe):
    judge, asked = recipe.stages["judge"], recipe.stages["asked"]
    assert isinstance(judge, LabelStage)
    assert isinstance(asked, ChooseStage)
    assert asked.people == 1.0
    assert judge.limit == asked.budget == BUDGET // 2
    assert judge.wrong_category in asked.categories
    assert asked.budget // asked.costs.people == CURVE[-1]


def test_half_of_the_budget_pays_for_the_last_point_of_the_curve():
    assert BUDGET / 2 / Costs().people == CURVE[-1]
    assert all("random" in shares for shares in STRATEGIES.values())


def results() -> list[list[Measured]]:
    def run(gold: float) -> list[Measured]:
        return [
            Measured("right", "arm: union", 400, 4400, gold, 0.5, 0.25, 1.0),
            Measured("wrong", "curve: random", 100, 4400, gold, 0.5, 0.25, 1.0),
        ]

    return [run(0.6), run(0.7), run(0.8)]


def test_tables_have_means_and_intervals_over_runs():
    # Standard deviation 10, t = 4.303 at two degrees of freedom: 4.303 * 10 / sqrt(3) = 24.8.
    last = list(hybrid.table(results(), "arm"))[-1]
    assert last == (
        "| right | union | 400 | 4,400 | 8,800 | 70.0 ± 24.8 | 50.0 ± 0.0 | 25.0 ± 0.0 | "
        "100.0 ± 0.0 |"
    )
    assert len(list(hybrid.table(results(), "curve"))) == 3


def test_results_that_are_there_are_not_measured_again(tmp_path, capsys):
    for number, rows in enumerate(results()):
        (tmp_path / f"seed{number}.json").write_text(json.dumps([asdict(row) for row in rows]))
    runs = [f"nowhere/seed{number}" for number in range(3)]
    hybrid.main([*runs, "--output", str(tmp_path)])
    assert "| right | union | 400 | 4,400 | 8,800 | 70.0 ± 24.8 |" in capsys.readouterr().out
