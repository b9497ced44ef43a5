"""The constitution's recipe: what it shares with the quickstart, and what gold must not touch."""

from pathlib import Path

import pytest

from tutelage.config import EvaluateStage, PreferStage, ReviseStage, load_recipe
from tutelage.judging.constitution import load_constitution
from tutelage.pipeline.isolation import MAY_SEE_GOLD
from tutelage.worlds.helpdesk.reviser import RULES

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
RECIPE = load_recipe(RECIPES / "constitution.yaml")


@pytest.mark.parametrize("name", ["world", "base", "sft"])
def test_policy_is_that_of_the_quickstart(name):
    assert RECIPE.stages[name] == load_recipe(RECIPES / "quickstart.yaml").stages[name]


def test_rounds_are_compared_on_the_same_answers_and_training():
    once, often = RECIPE.stages["revised_once"], RECIPE.stages["revised"]
    assert isinstance(once, ReviseStage)
    assert isinstance(often, ReviseStage)
    assert (once.rounds, often.rounds) == (1, 4)
    assert once.model_copy(update={"rounds": 4}) == often
    trained = RECIPE.stages["sft_once"].model_copy(update={"data": ("revised",)})
    assert trained == RECIPE.stages["sft_revised"]


def test_only_the_evaluation_may_see_gold():
    kinds = {name: stage.kind for name, stage in RECIPE.stages.items()}
    assert [name for name, kind in kinds.items() if kind in MAY_SEE_GOLD] == ["evaluation"]
    evaluation = RECIPE.stages["evaluation"]
    assert isinstance(evaluation, EvaluateStage)
    assert evaluation.models["before"] == "sft"


def test_judged_pairs_and_people_answer_other_prompts():
    judged = RECIPE.stages["principles"]
    assert isinstance(judged, PreferStage)
    assert RECIPE.stages[judged.samples].prompts == "world/train.jsonl"
    assert RECIPE.stages[RECIPE.stages["people"].samples].prompts == "world/held_out.jsonl"


def test_rules_know_most_principles_of_the_constitution():
    principles = load_constitution("customer-service").principles
    about = {principle.category for principle in principles}
    assert about & RULES.keys() == RULES.keys()
    assert about - RULES.keys() == {"guidance", "commitment"}
