"""The curve of a tiny PPO run is a text file: whoever changes it says so.

A change of `tiny_ppo.txt` is a change of numerics. Rewrite it with

    python tests/golden/test_curve.py

and add a line with the word **numerics** and the new digest to CHANGELOG.md.
"""

import hashlib
import re
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tutelage.algorithms import AdaptiveKL
from tutelage.config import PPOConfig
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import Critic, Policy
from tutelage.records import EncodedPrompt, Message, Prompt, Score
from tutelage.trainers.learner import Learner
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.ppo import ppo

CURVE = Path(__file__).with_name("tiny_ppo.txt")
CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
COLUMNS = (
    "reward/score",
    "reward/total",
    "kl/sequence",
    "kl/coefficient",
    "loss",
    "policy/loss",
    "value/loss",
    "policy/entropy",
    "policy/gradient_norm",
    "value/explained_variance",
    "response/length",
)
ROUNDS = 5


def digest() -> str:
    return hashlib.sha256(CURVE.read_bytes()).hexdigest()[:12]


def curve() -> list[list[float]]:
    """One row of numbers per round, from fixed seeds."""
    config = PPOConfig.model_validate(
        {
            "steps": ROUNDS,
            "prompts_per_step": 6,
            "epochs": 2,
            "batch": {"minibatch": 5, "microbatch_tokens": 40},
            "sampling": {"max_tokens": 6, "temperature": 0.9, "samples_per_prompt": 2},
            "kl": {"coefficient": 0.1, "loss_coefficient": 0.05},
            "truncation": {"mode": "penalise", "value": -0.5},
            "value_clip": 0.5,
            "entropy_coefficient": 0.01,
            "policy": {"learning_rate": 1e-3, "schedule": "linear", "warmup": 0.1},
            "critic": {"learning_rate": 3e-3, "schedule": "cosine"},
        }
    )
    torch.manual_seed(0)
    policy = Policy(
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=12,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=32,
                initializer_range=0.2,
                pad_token_id=None,
            )
        ).eval(),
        temperature=0.9,
    )
    critic = Critic.from_policy(policy.model)
    learner = Learner(
        {
            "policy": Optimizer(policy.model, config.policy, ROUNDS * 6),
            "value": Optimizer(critic, config.critic, ROUNDS * 6),
        },
        config.batch,
        torch.Generator().manual_seed(1),
    )
    prompts = [
        EncodedPrompt(
            Prompt(str(i), (Message("user", "x"),)), tuple(3 + (i + k) % 9 for k in range(i + 1))
        )
        for i in range(6)
    ]

    def even(asked: list[Prompt], completions: list) -> list[Score]:
        return [Score(sum(token % 2 == 0 for token in c.tokens) / 3) for c in completions]

    steps = ppo(
        policy,
        policy.frozen_copy(),
        critic,
        LocalEngine(policy, no_letters(), torch.Generator().manual_seed(2)),
        even,
        learner,
        [prompts] * ROUNDS,
        AdaptiveKL(0.1, target=0.5, horizon=100),
        Sampling(frozenset({2}), 6, 0.9, 2),
        config,
    )
    return [[step.metrics[column] for column in COLUMNS] for step in steps]


def no_letters() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    words = {f"w{i}": i for i in range(12)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0"))
    )


def written() -> list[list[float]]:
    lines = CURVE.read_text("utf-8").splitlines()
    assert tuple(lines[0].split()) == COLUMNS
    return [[float(number) for number in line.split()] for line in lines[1:]]


def test_curve_is_the_one_written_down():
    expected, found = written(), curve()
    assert len(expected) == len(found) == ROUNDS
    for number, (row, now) in enumerate(zip(expected, found, strict=True)):
        for column, old, new in zip(COLUMNS, row, now, strict=True):
            # Processors round differently, and five rounds of updates carry that on.
            assert new == pytest.approx(old, rel=2e-3, abs=2e-4), (
                f"round {number}: {column} is {new:.6g}, was {old:.6g}. If the change is meant, "
                f"rewrite the curve (see {Path(__file__).name}) and say so in the changelog"
            )


def test_changelog_speaks_of_this_curve():
    lines = CHANGELOG.read_text("utf-8").splitlines()
    assert any(re.search(r"\*\*numerics\*\*", line) and digest() in line for line in lines), (
        f"CHANGELOG.md has no line with **numerics** and the curve's digest {digest()}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = [COLUMNS, *([f"{number:.6g}" for number in row] for row in curve())]
    CURVE.write_text("".join(" ".join(row) + "\n" for row in rows), "utf-8")
    print(digest())
