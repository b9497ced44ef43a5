"""Recipes that make further claims about the helpdesk world: they begin as the gates do, and their
trainings differ in what they are named for alone."""

from pathlib import Path

import pytest

from tutelage.config import Recipe, TrainStage, load_recipe
from tutelage.data.python_file import load_callable
from tutelage.records import Comparison, Completion, Message, Prompt, StopReason

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
PROMPT = Prompt("p", (Message("user", "What is my bill?"),))
ANSWERS = ("Your bill is $40.", "Your bill is $41.", "Please ask again.")


def recipe(name: str) -> Recipe:
    return load_recipe(RECIPES / f"{name}.yaml")


def trainings(name: str) -> dict[str, TrainStage]:
    stages = recipe(name).stages
    return {label: stage for label, stage in stages.items() if isinstance(stage, TrainStage)}


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("customer-service", {"people", "reward_people"}),
        ("controls", {"people", "reward_people"}),
        ("early-stopping", {"people", "judge"}),
    ],
)
def test_they_begin_as_the_gates_do(name, shared):
    begun, gates = recipe(name).stages, recipe("gates").stages
    shared = {"world", "base", "sft", "samples", *shared}
    different = [label for label in shared if begun[label] != gates[label]]
    assert not different, f"copy these stages from gates.yaml to {name}.yaml: {different}"


def test_the_case_differs_in_kl_and_in_the_penalty_alone():
    found = trainings("customer-service")
    assert found["published"].ppo == found["careful"].ppo
    careless, careful = (found[name].ppo.to_json() for name in ("careless", "careful"))
    assert (careless.pop("kl")["coefficient"], careful.pop("kl")["coefficient"]) == (0.02, 0.1)
    assert careless == careful
    rewards = {name: stage.reward.to_json() for name, stage in found.items()}
    penalties = {name: reward.pop("length") for name, reward in rewards.items()}
    assert rewards["careless"] == rewards["published"] == rewards["careful"]
    assert penalties["careless"] is None
    assert penalties["published"]["coefficient"] == 0.01
    assert (penalties["careful"]["coefficient"], penalties["careful"]["slope_factor"]) == (
        "auto",
        1.5,
    )


def test_controls_differ_in_their_reward_alone():
    found = [stage.to_json() for stage in trainings("controls").values()]
    for stage in found:
        del stage["reward"]
    assert all(stage == found[0] for stage in found)


def test_trainings_that_are_to_be_stopped_differ_in_their_reward_models_alone():
    overfit, apart, shared = trainings("early-stopping").values()
    for other in (overfit, apart):
        others = {"reward": other.reward, "guard": other.guard}
        assert shared.model_copy(update=others) == other
        assert other.guard.monitors == shared.guard.monitors
    assert apart.reward == shared.reward
    assert [*apart.guard.models()] == [*overfit.guard.models()] != [*shared.guard.models()]


def completion(text: str) -> Completion:
    return Completion("p", (1, 2, 3), (-1.0, -1.0, -1.0), text, StopReason.STOP_TOKEN)


def control(name: str):
    return load_callable(f"{RECIPES / 'controls.py'}:{name}", "control")


def test_a_coin_is_no_judge_of_order_and_of_nothing_else_either():
    asked = [
        Comparison(PROMPT, f"{a} {i}", f"{b} {i}")
        for i in range(500)
        for a, b in (ANSWERS[:2], ANSWERS[1:])
    ]
    thrown = control("coin")(asked)
    turned = control("coin")([Comparison(PROMPT, row.b, row.a) for row in asked])
    assert [1.0 - p for p in turned] == thrown
    # A fair coin: 5 standard deviations of the mean of 1,000.
    assert sum(thrown) / len(thrown) == pytest.approx(0.5, abs=5 * 0.5 / 1000**0.5)


def test_noise_is_standard_normal_and_the_same_again():
    noise = control("noise")
    drawn = [noise(PROMPT, completion(f"{ANSWERS[0]} {i}")) for i in range(500)]
    assert noise(PROMPT, completion(f"{ANSWERS[0]} 7")) == drawn[7]
    mean = sum(drawn) / len(drawn)
    spread = (sum((x - mean) ** 2 for x in drawn) / len(drawn)) ** 0.5
    # 5 standard deviations of either: 1 / sqrt(500) and 1 / sqrt(1000).
    assert mean == pytest.approx(0.0, abs=0.224)
    assert spread == pytest.approx(1.0, abs=0.159)


def test_tokens_are_counted():
    assert control("tokens")(PROMPT, completion(ANSWERS[0])) == 3.0
