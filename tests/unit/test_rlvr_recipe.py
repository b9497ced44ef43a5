"""The recipe for verifiable rewards, whole, at toy size."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from tutelage import run
from tutelage.config import EvaluateStage, TrainStage, load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
TINY = {
    "world.documents": "80",
    "world.demonstrations": "16",
    "world.rl_prompts": "16",
    "world.held_out_prompts": "8",
    "world.test_prompts": "12",
    "base.model": "{hidden_size: 16, layers: 1, heads: 2, mlp_size: 32, context: 192}",
    "base.steps": "2",
    "base.rows": "2",
    "ppo.ppo.steps": "2",
    "ppo.ppo.critic_warmup": "0",
    "ppo.ppo.prompts_per_step": "4",
    "ppo.ppo.batch.minibatch": "4",
    "grpo.grpo.steps": "2",
    "grpo.grpo.prompts_per_step": "2",
    "grpo.grpo.batch.minibatch": "8",
}


@pytest.mark.slow
def test_accuracy_is_measured_before_and_after_on_sums_never_seen(tmp_path):
    overrides = [f"--{key}={value}" for key, value in TINY.items()]
    overrides += ["--threads=1", "--parallel=1"]
    result = run(
        RECIPES / "rlvr-arithmetic.yaml", tmp_path / "run", overrides=overrides, display=False
    )
    record = json.loads((result.stage("evaluation") / "evaluation.json").read_text())
    assert [model["name"] for model in record["models"]] == ["before", "ppo", "grpo"]
    for model in record["models"]:
        accuracy = model["measures"]["accuracy"]
        assert accuracy["n"] == 12
        assert 0.0 <= accuracy["low"] <= accuracy["mean"] <= accuracy["high"] <= 1.0
    assert {row["measure"] for row in record["differences"]} >= {"accuracy", "kl"}
    files = {name: (result.stage("world") / f"{name}.jsonl").read_text() for name in ("rl", "test")}
    asked = {
        name: {json.loads(line)["prompt"][0]["content"] for line in text.splitlines()}
        for name, text in files.items()
    }
    assert len(asked["test"]) == 12
    assert not asked["rl"] & asked["test"]
    samples = (result.stage("ppo") / "samples.jsonl").read_text().splitlines()
    assert "final_number" in json.loads(samples[0])["parts"]


def test_training_and_test_read_different_prompts():
    for name in ("rlvr-arithmetic", "rlvr-gsm8k"):
        recipe = load_recipe(RECIPES / f"{name}.yaml")
        evaluation = recipe.stages["evaluation"]
        assert isinstance(evaluation, EvaluateStage)
        assert evaluation.rater == "verifier"
        trained = [stage for stage in recipe.stages.values() if isinstance(stage, TrainStage)]
        assert trained
        for stage in trained:
            assert evaluation.verifier in stage.reward.verifiers
            assert stage.prompts != evaluation.prompts


def test_a_verifier_without_a_name_is_refused():
    values = {"models": {"a": "a"}, "baseline": "a", "prompts": "p"}
    with pytest.raises(ValidationError, match="rater is 'verifier' and verifier is None"):
        EvaluateStage.model_validate({**values, "rater": "verifier"})
    with pytest.raises(ValidationError, match="rater is 'none' and verifier is 'exact'"):
        EvaluateStage.model_validate({**values, "verifier": "exact"})
