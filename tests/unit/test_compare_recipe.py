"""The comparison is fair: one start, one budget, one reward; and it shows what was spent."""

from pathlib import Path

import pytest

from tutelage.config import (
    DPOStage,
    EvaluateStage,
    LabelStage,
    Recipe,
    SampleStage,
    SelectStage,
    SFTStage,
    TrainStage,
    load_recipe,
)

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
BUDGET = 3072
SHARED = ("world", "base", "sft", "samples", "people", "judge", "reward_people")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(RECIPES / "compare.yaml")


def stage(recipe: Recipe, name: str, kind):
    found = recipe.stages[name]
    assert isinstance(found, kind)
    return found


def learners(recipe: Recipe) -> dict[str, TrainStage]:
    return {name: each for name, each in recipe.stages.items() if isinstance(each, TrainStage)}


def drawn(samples: SampleStage) -> int:
    assert samples.limit is not None
    return samples.limit * samples.sampling.samples_per_prompt


def test_every_learner_draws_the_same_number_of_completions(recipe):
    budgets = {
        name: each.learner.steps * each.learner.rows_per_step
        for name, each in learners(recipe).items()
    }
    budgets["dpo"] = drawn(stage(recipe, "drafts", SampleStage))
    budgets["distilled"] = drawn(stage(recipe, "candidates", SampleStage))
    assert set(budgets.values()) == {BUDGET}
    assert {"ppo_people", "ppo_ai", "grpo", "rloo", "online_dpo", "dpo", "distilled"} <= set(
        budgets
    )


def test_all_begin_with_the_same_model_and_the_same_prompts(recipe):
    drawing = [*learners(recipe).values(), *(recipe.stages[n] for n in ("drafts", "candidates"))]
    assert {(each.model, each.prompts) for each in drawing} == {("sft", "world/rl.jsonl")}
    assert stage(recipe, "dpo", DPOStage).model == "sft"
    assert stage(recipe, "distilled", SFTStage).model == "sft"


def test_all_but_one_learn_from_people(recipe):
    rewards = {name: each.reward for name, each in learners(recipe).items()}
    ai = rewards.pop("ppo_ai")
    (people,) = set(map(repr, rewards.values()))
    assert "'reward_people'" in people
    assert ai.model == "reward_ai"
    assert repr(ai).replace("reward_ai", "reward_people") == people
    assert stage(recipe, "people_on_drafts", LabelStage).annotator == "people"
    assert stage(recipe, "winners", SelectStage).reward == "reward_people"


def test_the_two_runs_of_ppo_differ_by_the_reward_model_alone(recipe):
    people, ai = learners(recipe)["ppo_people"], learners(recipe)["ppo_ai"]
    assert ai == people.model_copy(update={"reward": ai.reward})


def test_everything_that_is_trained_is_evaluated_against_the_start(recipe):
    evaluation = stage(recipe, "evaluation", EvaluateStage)
    trained = {*learners(recipe), "dpo", "distilled"}
    assert set(evaluation.models.values()) == {*trained, "sft"}
    assert evaluation.models[evaluation.baseline] == "sft"


def test_stages_before_the_learners_are_those_of_the_gates(recipe):
    gates = load_recipe(RECIPES / "gates.yaml")
    different = [name for name in SHARED if recipe.stages[name] != gates.stages[name]]
    assert not different, f"copy these stages from gates.yaml to compare.yaml: {different}"
