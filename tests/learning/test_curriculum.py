"""A curriculum reaches a target with fewer response tokens than prompts in turn do.

Forty-eight prompts, as in many a data set: twenty are solved already (every answer is right),
twenty are out of reach (none is), and eight can be learned: their answer is right in a quarter of
the cases at first. An answer is one token. The target is to answer those eight rightly with
probability 0.9, computed from the policy and not sampled. Learner, sampler and model are the
shipped ones; what is counted is every token sampled on the way there.

The permutation test is exact: of all ways to call five of the ten runs a curriculum's, the share
with at least as large a gap between the means. Its smallest value is 1/252.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import pytest
import torch

from tutelage.config import GRPOConfig
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import Policy
from tutelage.records import Completion, EncodedPrompt, Message, Prompt, Score
from tutelage.trainers.curriculum import batches_of, observed
from tutelage.trainers.grpo import grpo
from tutelage.trainers.learner import Learner
from tutelage.trainers.optimizer import Optimizer

VOCABULARY = 24
RIGHT = 6
"""Tokens that are a right answer to a prompt that can be learned."""
TARGET = 0.9
SEEDS = range(5)
ENOUGH = 600
"""Rounds after which a run has failed."""
LEARNABLE = range(8)
SOLVED = range(8, 28)
PROMPTS = [
    EncodedPrompt(Prompt(str(i), (Message("user", "x"),)), (i % 8, 8 + i // 8)) for i in range(48)
]


def right_answers(seed: int) -> dict[int, set[int]]:
    """Of each prompt that can be learned, other tokens; of the others, all or none."""
    source = torch.Generator().manual_seed(seed)
    chosen = {
        i: set(torch.randperm(VOCABULARY, generator=source)[:RIGHT].tolist()) for i in range(8)
    }
    return {i: chosen.get(i, set(range(VOCABULARY)) if i in SOLVED else set()) for i in range(48)}


@torch.no_grad()
def success(policy: Policy, right: dict[int, set[int]]) -> float:
    """Mean over the prompts that can be learned of the probability of a right answer."""
    tokens = torch.tensor([PROMPTS[i].tokens for i in LEARNABLE])
    probabilities = policy.model(input_ids=tokens).logits[:, -1].softmax(-1)
    return sum(probabilities[i, list(right[i])].sum().item() for i in LEARNABLE) / len(LEARNABLE)


@pytest.fixture(scope="module")
def tokens_to_target(tiny_causal_lm, tiny_tokenizer) -> Callable[..., int]:
    """`tokens_to_target(seed, curriculum={...})`: response tokens that a run takes."""

    def run(seed: int, **settings: Any) -> int:
        config = GRPOConfig.model_validate(
            {
                "steps": ENOUGH,
                "prompts_per_step": 8,
                "epochs": 1,
                "batch": {"minibatch": 64},
                "sampling": {"max_tokens": 1, "samples_per_prompt": 8},
                "kl": {"coefficient": 0.0},
                "truncation": {"mode": "keep"},
                # At 3e-3 some runs settle on a wrong answer for good, by either way to draw.
                "policy": {"learning_rate": 1e-3, "schedule": "constant"},
                **settings,
            }
        )
        policy = Policy(tiny_causal_lm(vocab_size=VOCABULARY, seed=seed, initializer_range=0.02))
        right = right_answers(seed)

        def reward(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
            return [Score(float(c.tokens[0] in right[int(c.prompt_id)])) for c in completions]

        def source(offset: int) -> torch.Generator:
            return torch.Generator().manual_seed(100 * seed + offset)

        batches = batches_of(config, PROMPTS, source(0))
        rounds = grpo(
            policy,
            policy.frozen_copy(),
            LocalEngine(policy, tiny_tokenizer, source(1)),
            reward,
            Learner(
                {"policy": Optimizer(policy.model, config.policy, ENOUGH)}, config.batch, source(2)
            ),
            batches,
            Sampling(frozenset(), 1, 1.0, 8),
            config,
        )
        assert success(policy, right) < 0.35
        tokens = 0
        for step in observed(rounds, batches, config):
            tokens += sum(len(completion.tokens) for completion in step.completions)
            if success(policy, right) >= TARGET:
                return tokens
        raise AssertionError(f"not at {TARGET} after {ENOUGH} rounds: {success(policy, right):.2f}")

    return run


@pytest.fixture(scope="module")
def in_turn(tokens_to_target) -> list[int]:
    """Response tokens of each seed with every prompt in its turn."""
    return [tokens_to_target(seed) for seed in SEEDS]


def permutation_p(fewer: Sequence[int], more: Sequence[int]) -> float:
    """Exact one-sided p: splits of all runs whose means lie at least as far apart."""
    pool = [*fewer, *more]
    sums = [sum(chosen) for chosen in combinations(pool, len(fewer))]
    return sum(total <= sum(fewer) for total in sums) / len(sums)


def test_permutation_test_by_hand():
    """Of the six ways to choose two of 1 2 3 4, one has a sum of 3, two one of 4 or less."""
    assert permutation_p([1, 2], [3, 4]) == pytest.approx(1 / 6)
    assert permutation_p([1, 3], [2, 4]) == pytest.approx(2 / 6)
    assert permutation_p([3, 4], [1, 2]) == 1


@pytest.mark.learn
@pytest.mark.parametrize(
    "settings",
    [{"by": "learnability"}, {"by": "window", "low": 0.05, "high": 0.95}],
    ids=["learnability", "window"],
)
def test_curriculum_reaches_the_target_with_fewer_tokens(tokens_to_target, in_turn, settings):
    chosen = [tokens_to_target(seed, curriculum=settings) for seed in SEEDS]
    p = permutation_p(chosen, in_turn)
    print(f"in turn {in_turn}, curriculum {chosen}, p = {p:.4f}")
    assert p < 0.01
    assert sum(chosen) < 0.7 * sum(in_turn)


@pytest.mark.learn
def test_curriculum_that_draws_all_alike_gains_nothing(tokens_to_target, in_turn):
    """Negative control: a uniform share of 1 leaves nothing but the name."""
    alike = [tokens_to_target(seed, curriculum={"uniform_share": 1.0}) for seed in SEEDS]
    p = permutation_p(alike, in_turn)
    print(f"in turn {in_turn}, all alike {alike}, p = {p:.4f}")
    assert p > 0.05
