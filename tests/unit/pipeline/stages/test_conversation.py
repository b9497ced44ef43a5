"""Stages in conversation: every learner trains, files tell who said what, models are compared."""

import json
from pathlib import Path

import pytest

from tutelage.config import EvaluateStage, HelpdeskStage, TrainStage, load_recipe
from tutelage.errors import ConfigError
from tutelage.pipeline.stages import evaluate, helpdesk, train
from tutelage.records import Turn

ROOT = Path(__file__).resolve().parents[4]
TALK = {
    "name": f"{ROOT / 'examples' / 'higher_or_lower.py'}:HigherOrLower",
    "max_turns": 3,
    "max_tokens": 124,
}
SHARED = {
    "steps": 3,
    "prompts_per_step": 6,
    "batch": {"minibatch": 12, "microbatch_tokens": 256},
    "sampling": {"max_tokens": 20, "samples_per_prompt": 2},
    "policy": {"learning_rate": 1e-3},
}
LEARNERS = ("ppo", "grpo", "rloo", "reinforce", "reinforce_pp")


def stage(tiny_recipe, section: str = "ppo", **changes) -> TrainStage:
    """The train stage of the tiny recipe in conversation, paid by the environment alone."""
    given = tiny_recipe.stages["train"].model_dump()
    plain = {key: given[key] for key in ("model", "prompts")}
    algorithm = section.replace("_pp", "++")
    return TrainStage.model_validate(
        {**plain, "reward": {}, "environment": TALK, "algorithm": algorithm, section: SHARED}
        | changes
    )


@pytest.mark.parametrize("section", LEARNERS)
def test_every_learner_trains_in_conversation(section, tiny_recipe, context, read_rows):
    where = context()
    numbers = train.run(stage(tiny_recipe, section), where)
    assert numbers["response/length"] > 0
    samples = read_rows(where.folder / "samples.jsonl")
    assert any("[user] " in row["completion"] for row in samples)
    assert {"environment"} == {part for row in samples for part in row["parts"]}


def test_probes_keep_who_said_what(tiny_recipe, context, read_rows):
    given = tiny_recipe.stages["train"]
    where = context()
    train.run(stage(tiny_recipe, probes=given.probes, probe_every=3, probe_count=6), where)
    rows = read_rows(where.folder / "probes.jsonl")
    assert {row["step"] for row in rows} == {0, 3}
    turns = [[Turn.from_json(turn) for turn in row["turns"]] for row in rows]
    assert max(map(len, turns)) > 1
    for row, said in zip(rows, turns, strict=True):
        assert row["length"] == sum(turn.end - turn.start for turn in said)


def test_models_are_compared_on_whole_conversations(tiny_recipe, context):
    given = tiny_recipe.stages["train"]
    config = EvaluateStage.model_validate(
        {
            "models": {"before": given.model, "same": given.model},
            "baseline": "before",
            "prompts": given.prompts,
            "environment": TALK,
            "reward": given.reward.model,
            "sampling": {"max_tokens": 20},
        }
    )
    where = context()
    evaluate.run(config, where)
    found = json.loads((where.folder / "evaluation.json").read_text())
    before, same = (model["measures"] for model in found["models"])
    assert before["turns"]["mean"] > 1
    assert before == same
    assert "proxy" in before


def test_an_environment_that_is_nowhere_is_named_before_anything_is_drawn(tiny_recipe, context):
    nowhere = {**TALK, "name": "nowhere.py:Game"}
    with pytest.raises(ConfigError, match=r"environment 'nowhere.py:Game'"):
        train.run(stage(tiny_recipe, environment=nowhere), context())


def test_a_world_of_one_turn_is_what_it_was(context):
    """More turns change demonstrations and training prompts; what opens a conversation stays."""
    counts = {"documents": 3, "demonstrations": 5, "train_prompts": 5, "rl_prompts": 5}
    counts |= {"held_out_prompts": 5, "test_prompts": 5}
    one, three = context(), context()
    helpdesk.run(HelpdeskStage(**counts), one)
    helpdesk.run(HelpdeskStage(**counts, turns=3), three)
    for name in ("documents", "rl", "held_out", "test"):
        assert (one.folder / f"{name}.jsonl").read_bytes() == (
            three.folder / f"{name}.jsonl"
        ).read_bytes()
    rows = [json.loads(line) for line in (three.folder / "sft.jsonl").read_text().splitlines()]
    assert max(len(row["messages"]) for row in rows) == 6


def test_the_recipe_trains_and_evaluates_in_the_same_conversations():
    recipe = load_recipe(ROOT / "recipes" / "multiturn.yaml")
    aligned, evaluation = recipe.stages["aligned"], recipe.stages["evaluation"]
    assert isinstance(aligned, TrainStage)
    assert isinstance(evaluation, EvaluateStage)
    assert aligned.environment == evaluation.environment
    assert evaluation.rater == "helpdesk"


def test_the_helpdesks_customer_talks_in_training_and_in_the_evaluation(
    tiny_causal_lm, tiny_tokenizer, tmp_path, context
):
    world, trained, compared = context(), context(), context()
    few = {"documents": 1, "demonstrations": 1, "train_prompts": 1, "held_out_prompts": 1}
    helpdesk.run(HelpdeskStage(**few, rl_prompts=6, test_prompts=6), world)
    tiny_causal_lm(max_position_embeddings=512).save_pretrained(tmp_path / "lm")
    tiny_tokenizer.save_pretrained(tmp_path / "lm")
    talk = {"name": "helpdesk", "max_turns": 3, "max_tokens": 500}
    longest = {"max_tokens": 60}
    config = {
        "model": str(tmp_path / "lm"),
        "prompts": str(world.folder / "rl.jsonl"),
        "reward": {"length": {"coefficient": 0.01, "threshold": 4}},
        "environment": talk,
        "ppo": {
            "steps": 1,
            "prompts_per_step": 6,
            "batch": {"minibatch": 6},
            "sampling": longest,
        },
    }
    train.run(TrainStage.model_validate(config), trained)
    models = {"before": str(tmp_path / "lm"), "after": str(trained.folder / "model")}
    evaluation = EvaluateStage.model_validate(
        {
            "models": models,
            "baseline": "before",
            "prompts": str(world.folder / "test.jsonl"),
            "environment": talk,
            "rater": "helpdesk",
            "sampling": longest,
        }
    )
    evaluate.run(evaluation, compared)
    found = json.loads((compared.folder / "evaluation.json").read_text())
    gold = {model["name"]: model["measures"]["gold"] for model in found["models"]}
    assert gold["before"]["mean"] < 0
    assert found["models"][0]["measures"]["turns"]["mean"] > 1
