"""Each trainer improves what it is there to improve, within seconds, judged by statistics."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tutelage.algorithms import FixedKL
from tutelage.config import BatchConfig, OptimizerConfig, PPOConfig
from tutelage.data.chat import encode_prompt
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import Critic, Policy, RewardModel
from tutelage.records import (
    Comparison,
    Completion,
    EncodedPrompt,
    Message,
    Preference,
    Prompt,
    Score,
)
from tutelage.trainers.learner import Learner
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.ppo import ppo
from tutelage.trainers.reward import Minibatches, encode_comparisons, margins, train_reward
from tutelage.trainers.round import RoundStep
from tutelage.trainers.sft import sft

LINES = [
    "one two buckle my shoe",
    "three four knock at the door",
    "five six pick up sticks",
    "seven eight lay them straight",
    "nine ten a big fat hen",
    "eleven twelve dig and delve",
    "row row row your boat",
    "hush little baby",
    "baa baa black sheep",
    "the end",
]


def learner_of(name: str, model, steps: int, rate: float, minibatch: int) -> Learner:
    config = OptimizerConfig(learning_rate=rate, schedule="cosine", warmup=0.1)
    return Learner(
        {name: Optimizer(model, config, steps)},
        BatchConfig(minibatch=minibatch),
        torch.Generator().manual_seed(0),
    )


def asked(text: str, name: str = "p") -> Prompt:
    return Prompt(name, (Message("user", text),))


def test_sft_memorises_ten_lines(tiny_causal_lm, tiny_tokenizer):
    policy = Policy(tiny_causal_lm("llama"))
    rows, prompts = [], []
    for i, line in enumerate(LINES):
        prompt = asked(f"line {i}", str(i))
        tokens = encode_prompt(tiny_tokenizer, prompt)
        answer = tiny_tokenizer(line, add_special_tokens=False)["input_ids"]
        rows.append(([*tokens, *answer, 2], [0] * len(tokens) + [1] * (len(answer) + 1)))
        prompts.append(EncodedPrompt(prompt, tuple(tokens)))
    learner = learner_of("sft", policy.model, 150, 1e-2, 10)
    first, *_, last = sft(policy, learner, [rows] * 150, pad=0)
    assert first.metrics["loss"] > 3
    assert last.metrics["loss"] < 0.1
    engine = LocalEngine(policy, tiny_tokenizer, torch.Generator())
    said = engine.generate(prompts, Sampling(frozenset({2}), 40, temperature=0.0))
    assert [completion.text for completion in said] == LINES


def preferences(count: int, noise: float, seed: int) -> list[Preference]:
    """Two words of eight letters; the one with more vowels is better, ties left out."""
    random = np.random.default_rng(seed)
    made: list[Preference] = []
    while len(made) < count:
        words = ["".join(random.choice(list("aeioubcdfg"), 8)) for _ in range(2)]
        vowels = [sum(letter in "aeiou" for letter in word) for word in words]
        if vowels[0] != vowels[1]:
            better = (vowels[0] > vowels[1]) != (random.random() < noise)
            comparison = Comparison(asked("say a word", str(len(made))), *words)
            made.append(Preference(comparison, float(better), "simulated", "synthetic"))
    return made


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 0.93, 1.0), (0.2, 0.75, 0.85)])
def test_reward_model_recovers_a_preference(tiny_tokenizer, noise, low, high):
    """With 20 % of labels turned round, a perfect model agrees with 80 % of new ones."""
    config = AutoConfig.for_model(
        "llama",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        num_labels=1,
        initializer_range=0.1,
    )
    model = RewardModel(AutoModelForSequenceClassification.from_config(config), tiny_tokenizer)
    training, _ = encode_comparisons(model, preferences(1600, noise, seed=0))
    held_out, _ = encode_comparisons(model, preferences(800, noise, seed=1))
    learner = learner_of("reward_model", model, 100, 1e-2, 32)
    batches = Minibatches(training, 32, 100, torch.Generator().manual_seed(0))
    steps = list(train_reward(model, learner, batches))
    assert len(steps) == 100
    agree = [
        (margin > 0) == (p_a > 0.5) for margin, p_a in zip(*margins(model, held_out), strict=True)
    ]
    assert low <= np.mean(agree) <= high


def low_letters(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
    """The share of a completion's tokens that are among the first letters of the alphabet."""
    return [Score(float(np.mean([7 <= t < 20 for t in c.tokens]))) for c in completions]


def indifferent(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
    """A reward without any information: it depends on the order alone."""
    return [Score(float(i % 2)) for i in range(len(completions))]


def p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """How often a random split of all scores shows as large a rise (one-sided)."""
    random = np.random.default_rng(0)
    pool, n = np.array([*before, *after]), len(before)
    rise = np.mean(after) - np.mean(before)
    splits = (random.permutation(pool) for _ in range(2000))
    return float(np.mean([split[n:].mean() - split[:n].mean() >= rise for split in splits]))


@pytest.fixture
def trained(tiny_causal_lm, tiny_tokenizer) -> Callable[..., list[RoundStep]]:
    """`trained(reward)`: the rounds of a short PPO run."""

    def run(reward) -> list[RoundStep]:
        rounds = 20
        config = PPOConfig.model_validate(
            {
                "steps": rounds,
                "prompts_per_step": 8,
                "epochs": 2,
                "batch": {"minibatch": 32},
                "sampling": {"max_tokens": 8, "samples_per_prompt": 8},
                "kl": {"coefficient": 0.02},
                "truncation": {"mode": "keep"},
                "policy": {"learning_rate": 2e-3, "schedule": "constant"},
                "critic": {"learning_rate": 2e-3, "schedule": "constant"},
            }
        )
        policy = Policy(tiny_causal_lm("llama", initializer_range=0.1))
        critic = Critic.from_policy(policy.model)
        source = torch.Generator().manual_seed(0)
        prompts = [
            EncodedPrompt(asked(str(i), str(i)), tuple(range(7 + i, 9 + 2 * i))) for i in range(8)
        ]
        learner = Learner(
            {
                "policy": Optimizer(policy.model, config.policy, 1),
                "value": Optimizer(critic, config.critic, 1),
            },
            config.batch,
            source,
        )
        return list(
            ppo(
                policy,
                policy.frozen_copy(),
                critic,
                LocalEngine(policy, tiny_tokenizer, torch.Generator().manual_seed(0)),
                reward,
                learner,
                [prompts] * rounds,
                FixedKL(config.kl.coefficient),
                Sampling(frozenset({2}), 8, 1.0, 8),
                config,
            )
        )

    return run


def shares(step: RoundStep) -> list[float]:
    return [score.value for score in low_letters([], step.completions)]


def test_ppo_raises_a_token_counting_reward(trained):
    steps = trained(low_letters)
    assert p_value(shares(steps[0]), shares(steps[-1])) < 0.001
    assert np.mean(shares(steps[-1])) > np.mean(shares(steps[0])) + 0.2
    truncated = [step.metrics["response/truncated"] for step in steps]
    assert truncated[-1] <= truncated[0] + 0.1
    assert steps[-1].metrics["kl/k3"] > 0.01


def test_ppo_without_a_signal_raises_nothing(trained):
    """Negative control: the same statistics on a reward that knows nothing of the text."""
    steps = trained(indifferent)
    assert p_value(shares(steps[0]), shares(steps[-1])) > 0.01
