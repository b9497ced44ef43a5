"""The gates prove what the quickstart does: both recipes must train the same things."""

from pathlib import Path

import pytest

from tutelage.config import EvaluateStage, Recipe, SampleStage, TrainStage, load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
ADDED = {"cured", "control", "best_of_n"}


@pytest.fixture(scope="module")
def quickstart() -> Recipe:
    return load_recipe(RECIPES / "quickstart.yaml")


@pytest.fixture(scope="module")
def gates() -> Recipe:
    return load_recipe(RECIPES / "gates.yaml")


def training(recipe: Recipe, name: str) -> TrainStage:
    stage = recipe.stages[name]
    assert isinstance(stage, TrainStage)
    return stage


def evaluation(recipe: Recipe, name: str) -> EvaluateStage:
    stage = recipe.stages[name]
    assert isinstance(stage, EvaluateStage)
    return stage


def test_shared_stages_are_the_quickstarts(quickstart, gates):
    shared = set(quickstart.stages) - {"evaluation"}
    assert set(gates.stages) == shared | ADDED | {"evaluation"}
    different = [name for name in shared if gates.stages[name] != quickstart.stages[name]]
    assert not different, f"copy these stages from quickstart.yaml to gates.yaml: {different}"
    assert (gates.seed, gates.threads, gates.parallel) == (
        quickstart.seed,
        quickstart.threads,
        quickstart.parallel,
    )


def test_evaluation_measures_as_the_quickstart_does(quickstart, gates):
    original = evaluation(quickstart, "evaluation")
    extended = evaluation(gates, "evaluation")
    changed = {"models", "probes"}
    assert extended.model_dump(exclude=changed) == original.model_dump(exclude=changed)
    assert extended.baseline == original.baseline
    assert original.models.items() <= extended.models.items()
    assert original.probes.items() <= extended.probes.items()


def test_the_cure_changes_only_what_it_is_named_for(gates):
    unguarded, cured = training(gates, "unguarded"), training(gates, "cured")
    plain = cured.model_copy(
        update={
            "reward": unguarded.reward,
            "ppo": cured.ppo.model_copy(
                update={"kl": unguarded.ppo.kl, "truncation": unguarded.ppo.truncation}
            ),
        }
    )
    assert plain == unguarded
    assert cured.reward.model_copy(update={"length": None}) == unguarded.reward
    assert (cured.ppo.kl.coefficient, cured.ppo.truncation.mode) == (0.15, "replace")


def test_the_control_differs_from_the_cure_by_the_slope_factor_alone(gates):
    cured, control = training(gates, "cured"), training(gates, "control")
    assert cured.reward.length is not None
    assert control.reward.length is not None
    assert (cured.reward.length.slope_factor, control.reward.length.slope_factor) == (1.5, 0.25)
    assert control == cured.model_copy(update={"reward": control.reward})
    assert control.reward.length == cured.reward.length.model_copy(update={"slope_factor": 0.25})
    assert control.reward.model_copy(update={"length": None}) == cured.reward.model_copy(
        update={"length": None}
    )


def test_best_of_n_draws_from_the_starting_policy_as_it_is_trained(gates):
    stage = gates.stages["best_of_n"]
    assert isinstance(stage, SampleStage)
    assert (stage.limit, stage.sampling.samples_per_prompt) == (192, 256)
    assert stage.model == training(gates, "unguarded").model
    assert stage.sampling.max_tokens == training(gates, "unguarded").ppo.sampling.max_tokens
