"""Alarms: each rings at its limit and not before it, once in words, always in numbers."""

import pytest

from tutelage.config import PPOConfig
from tutelage.config.alarms import AlarmsConfig
from tutelage.errors import TrainingError
from tutelage.trainers.alarms import Alarms, look

HEALTHY = {
    "policy/log_ratio_max": 0.3,
    "kl/sequence": 2.0,
    "reward/std": 0.8,
    "reward/score": 1.0,
    "policy/entropy": 1.5,
    "response/stop_rate": 0.97,
    "response/length": 20.0,
    "value/explained_variance": 0.4,
    "train/skipped": 0.0,
}
NAN = float("nan")


def config(prompts: int = 8, kl: dict | None = None, **alarms) -> PPOConfig:
    return PPOConfig.model_validate(
        {
            "prompts_per_step": prompts,
            "batch": {"minibatch": prompts},
            "whiten_advantages": prompts > 1,
            "kl": kl or {},
            "alarms": alarms,
        }
    )


CASES = [
    ("ratio_explosion", {"policy/log_ratio_max": 20.5}, {"policy/log_ratio_max": 20.0}),
    ("kl_runaway", {"kl/sequence": 100.5}, {"kl/sequence": 99.5}),
    ("reward_constant", {"reward/std": 1e-12}, {"reward/std": 1e-6}),
    ("entropy_collapse", {"policy/entropy": 0.04}, {"policy/entropy": 0.06}),
    ("never_ends", {"response/stop_rate": 0.0}, {"response/stop_rate": 0.01}),
    # One-token answers are the stop token alone; a stop rate of 1 is no alarm for others.
    (
        "always_ends_at_once",
        {"response/stop_rate": 1.0, "response/length": 1.2},
        {"response/stop_rate": 1.0, "response/length": 1.6},
    ),
    (
        "always_ends_at_once",
        {"response/stop_rate": 0.9, "response/length": 1.5},
        # Answers of one word that the limit cuts off are short, not empty.
        {"response/stop_rate": 0.5, "response/length": 1.0},
    ),
    ("value_divergence", {"value/explained_variance": -5.1}, {"value/explained_variance": -4.9}),
]


@pytest.mark.parametrize(("name", "rings", "rings_not"), CASES)
def test_alarm_rings_at_its_limit(name, rings, rings_not):
    assert list(look(1, HEALTHY | rings, config())) == [name]
    assert look(1, HEALTHY | rings_not, config()) == {}
    assert look(1, HEALTHY | rings, config(**{name: "off"})) == {}
    (sentence,) = look(1, HEALTHY | rings, config()).values()
    assert "nan" not in sentence


def test_every_alarm_is_tried():
    names = {name.removesuffix("_limit") for name in AlarmsConfig.model_fields}
    assert {name for name, _, _ in CASES} == names


@pytest.mark.parametrize("name", [name for name, _, _ in CASES])
def test_limit_is_the_one_of_the_recipe(name):
    value = {
        "ratio_explosion": 0.2,
        "kl_runaway": 1.0,
        "reward_constant": 1.0,
        "entropy_collapse": 2.0,
        "never_ends": 0.98,
        "always_ends_at_once": 21.0,
        "value_divergence": 0.5,
    }[name]
    assert list(look(1, HEALTHY, config(**{f"{name}_limit": value}))) == [name]


def test_kl_runs_away_from_ten_times_its_target():
    target = {"target": 3.0, "horizon": 10_000}
    assert list(look(1, HEALTHY | {"kl/sequence": 31.0}, config(kl=target))) == ["kl_runaway"]
    assert look(1, HEALTHY | {"kl/sequence": 29.0}, config(kl=target)) == {}
    explicit = config(kl=target, kl_runaway_limit=40.0)
    assert look(1, HEALTHY | {"kl/sequence": 31.0}, explicit) == {}


def test_what_was_not_measured_rings_nothing():
    assert look(1, {}, config()) == {}
    assert look(1, dict.fromkeys(HEALTHY, NAN), config()) == {}
    # Nothing was learned from in this round: its entropy is the mean over no token.
    assert look(1, HEALTHY | {"policy/entropy": 0.0, "train/skipped": 1.0}, config()) == {}
    assert look(1, HEALTHY | {"reward/std": 0.0}, config(prompts=1)) == {}


def test_a_critic_that_was_taught_nothing_yet_does_not_diverge():
    wrong = HEALTHY | {"value/explained_variance": -30.0}
    assert look(0, wrong, config()) == {}
    assert list(look(1, wrong, config())) == ["value_divergence"]


def test_alarm_is_said_once_and_counted_always():
    heard: list[str] = []
    alarms = Alarms(config(), heard.append)
    low, far = {"policy/entropy": 0.01}, {"kl/sequence": 500.0}
    counts = [alarms.hear(i, HEALTHY | odd) for i, odd in enumerate([{}, low, {}, low | far, low])]
    assert counts == [
        {},
        {"alarm/entropy_collapse": 1.0},
        {"alarm/entropy_collapse": 1.0},
        {"alarm/entropy_collapse": 2.0, "alarm/kl_runaway": 1.0},
        {"alarm/entropy_collapse": 3.0, "alarm/kl_runaway": 1.0},
    ]
    assert [message.split(":")[0] for message in heard] == [
        "alarm entropy_collapse in step 1",
        "alarm kl_runaway in step 3",
    ]
    assert not alarms.stopping
    assert alarms.summary() == {
        "alarm/entropy_collapse": 3.0,
        "alarm/entropy_collapse/first": 1.0,
        "alarm/kl_runaway": 1.0,
        "alarm/kl_runaway/first": 3.0,
    }


def test_alarm_that_stops_stops_in_its_own_round_alone():
    alarms = Alarms(config(kl_runaway="stop"), lambda message: None)
    alarms.hear(4, HEALTHY | {"kl/sequence": 500.0, "policy/entropy": 0.01})
    assert alarms.stopping
    error = alarms.stop(4)
    assert isinstance(error, TrainingError)
    assert "step 4 by alarm kl_runaway: the policy is 500 nats" in str(error)
    assert "entropy" not in str(error)
    alarms.hear(5, HEALTHY)
    assert not alarms.stopping


def test_a_token_that_jumps_rings_in_the_round_in_which_it_does(bench, ragged_script):
    world = bench(
        script=ragged_script, epochs=2, policy={"learning_rate": 10.0}, kl={"coefficient": 0.0}
    )
    (step,) = world.run()
    assert "ratio_explosion" in look(1, step.metrics, world.config)
    (calm,) = bench(script=ragged_script, epochs=2).run()
    assert 0 < calm.metrics["policy/log_ratio_max"] < 5
    assert "ratio_explosion" not in look(1, calm.metrics, world.config)
