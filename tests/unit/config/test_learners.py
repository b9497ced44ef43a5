"""Which algorithm learns: one section is read, and combinations that teach nothing are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from tutelage.config import (
    GRPOConfig,
    OnlineDPOConfig,
    PPOConfig,
    ReinforceConfig,
    ReinforcePPConfig,
    RLOOConfig,
    TrainStage,
)

PLAIN = {"model": "lm", "prompts": "prompts.jsonl", "reward": {"model": "rm"}}
SECTIONS = {
    "ppo": ("ppo", PPOConfig),
    "grpo": ("grpo", GRPOConfig),
    "rloo": ("rloo", RLOOConfig),
    "reinforce": ("reinforce", ReinforceConfig),
    "reinforce++": ("reinforce_pp", ReinforcePPConfig),
    "online_dpo": ("online_dpo", OnlineDPOConfig),
}


def stage(**changes: Any) -> TrainStage:
    return TrainStage.model_validate({**PLAIN, **changes})


def refusal(**changes: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        stage(**changes)
    return str(refused.value)


@pytest.mark.parametrize("algorithm", SECTIONS)
def test_section_of_the_algorithm_is_there_and_no_other(algorithm):
    section, kind = SECTIONS[algorithm]
    read = stage(algorithm=algorithm)
    assert type(read.learner) is kind
    assert read.learner.section == section
    assert read.learner.has_critic == (algorithm == "ppo")
    others = {name for name, _ in SECTIONS.values()} - {section}
    assert section in read.to_json()
    assert not others & read.to_json().keys()
    assert TrainStage.model_validate(read.to_json()) == read
    assert TrainStage.model_validate(read.model_dump()) == read


@pytest.mark.parametrize("algorithm", SECTIONS)
def test_section_of_another_algorithm_is_refused_by_name(algorithm):
    section, _ = SECTIONS[algorithm]
    for other, _ in SECTIONS.values():
        if other != section:
            reason = refusal(algorithm=algorithm, **{other: {"steps": 7}})
            assert f"algorithm is {algorithm!r} but there is a section {other!r}" in reason
            assert f"move its keys to {section!r}" in reason


def test_section_given_in_part_keeps_the_defaults_of_its_algorithm():
    grpo = stage(algorithm="grpo", grpo={"sampling": {"max_tokens": 9}}).learner
    assert (grpo.sampling.max_tokens, grpo.sampling.samples_per_prompt) == (9, 8)
    rloo = stage(algorithm="rloo", rloo={"policy": {"warmup": 0.1}}).learner
    assert rloo.policy.learning_rate == 3e-6


def test_temperature_goes_to_its_last_value_in_a_straight_line():
    cooling = {"steps": 5, "sampling": {"temperature": 1.2}, "final_temperature": 0.4}
    read = stage(algorithm="rloo", rloo=cooling).learner
    assert [read.temperature_at(i) for i in range(5)] == pytest.approx([1.2, 1.0, 0.8, 0.6, 0.4])
    constant = stage(ppo={"steps": 1, "sampling": {"temperature": 0.7}}).learner
    assert constant.temperature_at(0) == 0.7


def test_curriculum_that_was_read_is_read_again():
    window = {"by": "window", "low": 0.1, "pass_score": 2.5}
    read = stage(algorithm="grpo", grpo={"curriculum": window})
    assert read.learner.curriculum.high == 0.8
    assert TrainStage.model_validate(read.to_json()) == read


def test_settings_can_be_exchanged_whole():
    read = stage(algorithm="reinforce++")
    changed = read.with_learner(read.learner.model_copy(update={"steps": 7}))
    assert changed.learner.steps == 7
    assert changed.to_json() == read.to_json() | {
        "reinforce_pp": read.to_json()["reinforce_pp"] | {"steps": 7}
    }


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("grpo", {"sampling": {"samples_per_prompt": 1}}, "at least 2 are needed, because"),
    ("rloo", {"sampling": {"samples_per_prompt": 1}}, "at least 2 are needed, because"),
    ("reinforce++", {"baseline": "group"}, "sampling.samples_per_prompt is 1"),
    ("grpo", {"kl": {"estimator": "k1"}}, "whose expected gradient in a loss is 0"),
    ("grpo", {"kl": {"estimator": "k4"}}, "expected 'k3', 'k2' or 'full'"),
    ("grpo", {"kl": {"target": 6.0}}, "Extra inputs are not permitted"),
    ("rloo", {"kl": {"estimator": "k3"}}, "only 'k1' is allowed in the reward"),
    ("reinforce", {"kl": {"estimator": "k2"}}, "only 'k1' is allowed in the reward"),
    ("grpo", {"ratio": "sequence", "aggregation": "token_mean"}, "which would count by its length"),
    ("grpo", {"truncation": {"mode": "bootstrap"}}, "needs a critic, and grpo has none"),
    ("reinforce++", {"truncation": {"mode": "bootstrap"}}, "and reinforce_pp has none"),
    ("grpo", {"critic": {"learning_rate": 1e-3}}, "Extra inputs are not permitted"),
    ("rloo", {"whiten_advantages": True}, "Extra inputs are not permitted"),
    ("reinforce", {"epochs": 2}, "Extra inputs are not permitted"),
    ("reinforce", {"clip": 0.2}, "Extra inputs are not permitted"),
    ("reinforce", {"batch": {"minibatch": 32}}, "REINFORCE has no ratio"),
    ("reinforce", {"baseline_decay": 1.0}, "less than 1"),
    (
        "reinforce",
        {"prompts_per_step": 1, "batch": {"minibatch": 1}, "baseline": "batch"},
        "whose advantage would be 0",
    ),
    ("reinforce++", {"prompts_per_step": 1, "batch": {"minibatch": 1}}, "at least 2 completions"),
    ("grpo", {"truncation": {"mode": "soft"}}, "a buffer belongs to mode 'soft'"),
    ("ppo", {"truncation": {"mode": "keep", "buffer": 8}}, "a buffer belongs to mode 'soft'"),
    ("ppo", {"truncation": {"mode": "soft", "buffer": 97}}, "the buffer lies before the limit"),
    ("rloo", {"truncation": {"mode": "soft", "buffer": 8, "value": 1.0}}, "would reward length"),
    ("ppo", {"final_temperature": 0.0}, "greater than 0"),
    ("ppo", {"final_temperature": float("inf")}, "finite number"),
    ("ppo", {"final_temperature": 0.7, "steps": 1}, "a single round has one temperature"),
    ("ppo", {"curriculum": {}}, "a curriculum needs at least 2"),
    ("grpo", {"curriculum": {"uniform_share": 0.0}}, "greater than 0"),
    ("grpo", {"curriculum": {"uniform_share": 1.5}}, "less than or equal to 1"),
    ("grpo", {"curriculum": {"decay": 1.0}}, "less than 1"),
    ("grpo", {"curriculum": {"by": "window", "low": 0.8}}, "low must be less than high"),
    ("grpo", {"curriculum": {"low": 0.1}}, "which has no window: leave it out"),
    ("grpo", {"curriculum": {"pass_score": 1.0}}, "which has no window: leave it out"),
    ("grpo", {"curriculum": {}, "extra_batches": 1}, "both choose the prompts"),
    ("online_dpo", {"sampling": {"samples_per_prompt": 1}}, "at least 2 are needed, because"),
    ("online_dpo", {"kl": {"coefficient": 0.1}}, "Extra inputs are not permitted"),
    ("online_dpo", {"entropy_coefficient": 0.1}, "Extra inputs are not permitted"),
    ("online_dpo", {"prompts_per_step": 32}, "a round has only 32 pairs, one for each of prompts"),
    ("online_dpo", {"truncation": {"mode": "bootstrap"}}, "needs a critic, and online_dpo has"),
    ("online_dpo", {"judge": "j.py:f", "label": "soft"}, "leave one of the two out"),
    ("online_dpo", {"judge": "j.py:f"}, "nothing is scored, but reward is set"),
]


@pytest.mark.parametrize(("algorithm", "settings", "reason"), WRONG, ids=lambda x: str(x)[:40])
def test_settings_that_teach_nothing_are_refused_with_the_reason(algorithm, settings, reason):
    section, _ = SECTIONS[algorithm]
    assert reason in refusal(algorithm=algorithm, **{section: settings})


def test_what_holds_the_policy_has_one_name_for_all_learners():
    ppo = stage(ppo={"kl": {"coefficient": 0.2, "target": 5.0}}).learner
    assert (ppo.pull, ppo.beta, ppo.kl_target) == ("kl.coefficient", 0.2, 5.0)
    grpo = stage(algorithm="grpo", grpo={"kl": {"coefficient": 0.3}}).learner
    assert (grpo.pull, grpo.beta, grpo.kl_target) == ("kl.coefficient", 0.3, None)
    online = stage(algorithm="online_dpo", online_dpo={"loss": {"beta": 0.4}}).learner
    assert (online.pull, online.beta, online.kl_target) == ("loss.beta", 0.4, None)


def test_updates_of_online_dpo_go_through_a_pair_for_each_prompt():
    settings = {"prompts_per_step": 64, "sampling": {"samples_per_prompt": 4}}
    online = stage(algorithm="online_dpo", online_dpo=settings).learner
    assert (online.rows_per_step, online.updates_per_step, online.passes) == (256, 64, 1)
    rloo = stage(algorithm="rloo", rloo=settings).learner
    assert (rloo.rows_per_step, rloo.updates_per_step) == (256, 256)


def test_a_judge_stands_in_the_place_of_the_reward():
    plain = {name: value for name, value in PLAIN.items() if name != "reward"}
    settings = {"judge": "j.py:f", "sampling": {"samples_per_prompt": 5}, "prompts_per_step": 32}
    judged = TrainStage.model_validate({**plain, "algorithm": "online_dpo", "online_dpo": settings})
    # Five completions make two pairs; the last one is not compared.
    assert judged.learner.updates_per_step == 64
    assert list(judged.files()) == [("online_dpo.judge", "j.py")]
    with pytest.raises(ValidationError, match="reward is missing"):
        TrainStage.model_validate(plain)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "reinforce", "reinforce++", "online_dpo"])
def test_critic_is_refused_where_there_is_none(algorithm):
    assert "critic is 'reward', but" in refusal(algorithm=algorithm, critic="reward")
    assert "critic_trunk is 'shared', but" in refusal(algorithm=algorithm, critic_trunk="shared")
    # 4-bit weights cannot be copied into a critic, and here nobody asks for one.
    assert stage(algorithm=algorithm, lora={"quantise": "4bit"}).lora.quantise == "4bit"


@pytest.mark.parametrize(
    "settings",
    [
        {"scale_by_std": False, "aggregation": "fixed_length"},
        {
            "clip_high": 0.28,
            "aggregation": "token_mean",
            "kl": {"coefficient": 0.0},
            "truncation": {"mode": "soft", "buffer": 16},
        },
        {"ratio": "sequence", "clip": 3e-4, "clip_high": 4e-4},
    ],
    ids=["Dr. GRPO", "DAPO", "GSPO"],
)
def test_what_was_made_of_grpo_is_an_option_of_it(settings):
    assert stage(algorithm="grpo", grpo=settings).learner.section == "grpo"
