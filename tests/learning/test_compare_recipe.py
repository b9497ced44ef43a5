"""recipes/compare.yaml from nothing to its table, with everything made tiny: does it hold together?

What the learners learn in so few rounds says nothing and is not looked at.
"""

import json
from pathlib import Path

import pytest

from tutelage import run
from tutelage.cli.main import main
from tutelage.config import TrainStage, load_recipe
from tutelage.tracking.reader import read_run

pytestmark = [pytest.mark.learn, pytest.mark.timeout(1800)]

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "compare.yaml"

TINY = {
    "world.documents": 100,
    "world.demonstrations": 100,
    "world.train_prompts": 40,
    "world.rl_prompts": 60,
    "world.held_out_prompts": 12,
    "world.test_prompts": 12,
    "base.steps": 3,
    "base.model.hidden_size": 24,
    "base.model.layers": 1,
    "base.model.mlp_size": 32,
    "base.model.vocabulary": 400,
    # Enough to end some answers: one that does not is no candidate.
    "sft.epochs": 3,
    "sft.batch.minibatch": 16,
    "sft.optimizer.learning_rate": 0.01,
    "drafts.limit": 12,
    "candidates.limit": 12,
    "dpo.batch.minibatch": 4,
    "distilled.batch.minibatch": 4,
}
ROUND = {"steps": 2, "batch.minibatch": 2, "sampling.max_tokens": 12}
PROMPTS = {"ppo": 8}
"""Prompts in a round; the others have four completions of each of two."""


def tiny_overrides() -> list[str]:
    """Options that shrink the recipe, the budget of each learner alike."""
    values = dict(TINY)
    recipe = load_recipe(RECIPE)
    for name, stage in recipe.stages.items():
        if isinstance(stage, TrainStage):
            section = f"{name}.{stage.learner.section}"
            values |= {f"{section}.{key}": value for key, value in ROUND.items()}
            values[f"{section}.prompts_per_step"] = PROMPTS.get(stage.algorithm, 2)
            values[f"{name}.probe_count"] = 4
    for name in ("samples", "drafts", "candidates", "evaluation"):
        values[f"{name}.sampling.max_tokens"] = 12
    return [f"--{key}={value}" for key, value in values.items()]


def test_recipe_runs_to_the_table_that_shows_what_was_spent(tmp_path, capsys):
    recipe = load_recipe(RECIPE)
    folder = tmp_path / "run"
    run(RECIPE, folder, overrides=tiny_overrides(), display=False)
    evaluation = read_run(folder).evaluation
    assert evaluation is not None
    asked = recipe.stages["evaluation"]
    assert [model.name for model in evaluation.models] == [*asked.models, *asked.best_of_n]
    for model in evaluation.models[1:]:
        assert {"gold", "proxy", "kl", "length", "response_tokens", "seconds"} <= set(
            model.measures
        )
        assert evaluation.difference(model.name, "gold") is not None
    tokens = {m.name: m.measures["response_tokens"].mean for m in evaluation.models}
    manifest = json.loads((folder / "stages/candidates/manifest.json").read_text())
    assert tokens["distilled"] == manifest["metrics"]["response_tokens"]
    rows = [
        json.loads(line)["metrics"]["response/tokens"]
        for line in (folder / "stages/rloo/metrics.jsonl").read_text().splitlines()
    ]
    assert (len(rows), sum(rows)) == (2, tokens["rloo"])
    assert tokens["before"] == 0
    assert "Tokens drawn" in (folder / "report.html").read_text("utf-8")

    assert main(["compare", str(folder), "--output", str(tmp_path / "all")]) == 0
    assert "over prompts; ✓ better" in capsys.readouterr().out
    assert "| Tokens drawn |" in (tmp_path / "all" / "comparison.md").read_text()
    compared = json.loads((tmp_path / "all" / "comparison.json").read_text())
    assert {m["name"] for m in compared["models"]} == set(tokens)
