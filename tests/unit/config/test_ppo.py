"""Combinations under which PPO would learn something else are refused, with the reason."""

import pytest
from pydantic import ValidationError

from tutelage.config import PPOConfig, TrainStage

WRONG = [
    ({"kl": {"estimator": "k3"}}, "only 'k1' is allowed in the reward"),
    ({"kl": {"estimator": "k2"}}, "only 'k1' is allowed in the reward"),
    ({"sampling": {"top_p": 0.9}}, "training rollouts need 1.0 and 0"),
    ({"sampling": {"top_k": 50}}, "training rollouts need 1.0 and 0"),
    ({"sampling": {"temperature": 0.0}}, "greater than 0"),
    ({"precision": {"weights": "bfloat16"}}, "only 'float32' is allowed"),
    ({"batch": {"minibatch": 65}}, "a round has only 64 completions"),
    ({"kl": {"target": 6.0, "horizon": 12}}, "could make beta negative"),
    ({"prompts_per_step": 1, "batch": {"minibatch": 1}}, "needs at least 2 completions"),
    ({"steps": 5, "critic_warmup": 5}, "the policy would never be trained"),
    ({"dual_clip": 1.0}, "greater than 1"),
    ({"gamma": 1.01}, "less than or equal to 1"),
    ({"policy": {"learning_rate": float("nan")}}, "finite number"),
    ({"clip_hi": 0.3}, "Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("settings", "reason"), WRONG, ids=lambda x: str(x)[:40])
def test_refused_with_a_reason(settings, reason):
    with pytest.raises(ValidationError) as refusal:
        PPOConfig.model_validate(settings)
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("critic", "trunk", "reason"),
    [
        ("reward", "shared", "the policy's trunk is not the reward model's"),
        ("policy", "adapter", "needs a policy with adapters: set lora"),
        ("policy", "copied", "Input should be 'own', 'shared' or 'adapter'"),
    ],
)
def test_critic_that_cannot_stand_on_that_trunk_is_refused(critic, trunk, reason):
    with pytest.raises(ValidationError) as refusal:
        TrainStage.model_validate(
            {
                "model": "lm",
                "prompts": "prompts.jsonl",
                "reward": {"model": "rm"},
                "critic": critic,
                "critic_trunk": trunk,
            }
        )
    assert reason in str(refusal.value)


def train_stage(**changes) -> TrainStage:
    plain = {"model": "lm", "prompts": "prompts.jsonl", "reward": {"model": "rm"}}
    return TrainStage.model_validate({**plain, **changes})


def test_critic_in_the_policys_model_is_none_of_the_reward_models():
    assert train_stage(critic_trunk="adapter", lora={}).lora.rank == 16
    with pytest.raises(ValidationError, match="trunk is not the reward model's"):
        train_stage(critic="reward", critic_trunk="adapter", lora={})


def test_4_bit_policy_cannot_be_copied_into_a_critic():
    four_bit = {"quantise": "4bit"}
    with pytest.raises(ValidationError, match="4-bit weights cannot be trained: set critic_trunk"):
        train_stage(lora=four_bit)
    for others in ({"critic": "reward"}, {"critic_trunk": "adapter"}, {"critic_trunk": "shared"}):
        train_stage(lora=four_bit, **others)


def test_defaults_hold_together():
    config = PPOConfig()
    assert (config.gamma, config.kl.estimator, config.policy.epsilon) == (1.0, "k1", 1e-5)
    assert config.rows_per_step == 64


def test_samples_per_prompt_count_as_completions():
    config = PPOConfig.model_validate(
        {"prompts_per_step": 1, "sampling": {"samples_per_prompt": 8}, "batch": {"minibatch": 8}}
    )
    assert config.rows_per_step == 8


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValidationError, match="frozen"):
        PPOConfig().steps = 3
