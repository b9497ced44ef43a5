"""A temperature that changes is the same one everywhere in a round, in every learner."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.algorithms import MovingBaseline
from tutelage.config import (
    GRPOConfig,
    OnlineDPOConfig,
    PPOConfig,
    ReinforceConfig,
    ReinforcePPConfig,
    RLOOConfig,
)
from tutelage.pipeline.stages.learners import Parts
from tutelage.trainers.batches import Shuffled
from tutelage.trainers.curriculum import observed
from tutelage.trainers.round import RoundStep

CONFIGS = {
    "ppo": PPOConfig,
    "grpo": GRPOConfig,
    "rloo": RLOOConfig,
    "reinforce": ReinforceConfig,
    "reinforce++": ReinforcePPConfig,
    "online_dpo": OnlineDPOConfig,
}
COOLING = {"steps": 3, "final_temperature": 0.4}
EXPECTED = [1.5, 0.95, 0.4]
ROWS = 8


@pytest.fixture
def world(bench) -> Callable[..., tuple[Any, Parts, Any]]:
    """`world("grpo", **COOLING)`: bench, parts and settings; the policy's own sampler draws."""

    def build(algorithm: str, **options: Any) -> tuple[Any, Parts, Any]:
        sampling = {"max_tokens": 5, "samples_per_prompt": 2, "temperature": 1.5}
        batch = {"minibatch": 4 if algorithm == "online_dpo" else ROWS}
        config = CONFIGS[algorithm].model_validate(
            {
                "prompts_per_step": 4,
                "sampling": sampling,
                "batch": batch,
                "truncation": {"mode": "keep"},
                "policy": {"learning_rate": 1e-2, "schedule": "constant"},
                **options,
            }
        )
        each = bench(
            sampling=sampling,
            batch=batch,
            temperature=1.5,
            train=("policy", "value") if algorithm == "ppo" else ("policy",),
        )
        batches = Shuffled(each.prompts, 4, config.steps, torch.Generator().manual_seed(0))
        parts = Parts(
            each.policy,
            each.reference,
            each.engine,
            each.reward,
            each.learner,
            batches,
            each.sampling,
            each.critic if algorithm == "ppo" else None,
            each.kl,
            MovingBaseline(),
        )
        return each, parts, config

    return build


@torch.no_grad()
def logprobs_at(temperature: float, model, step: RoundStep) -> Tensor:
    """log softmax(z / T) of the response tokens, row by row, without padding."""
    found = []
    for prompt, completion in zip(step.prompts, step.completions, strict=True):
        row = torch.tensor([*prompt.tokens, *completion.tokens])
        logits = model(input_ids=row[None]).logits[0, len(prompt.tokens) - 1 : -1]
        logprobs = (logits.double() / temperature).log_softmax(-1)
        found.append(logprobs.gather(1, row[len(prompt.tokens) :, None]).squeeze(1))
    return torch.cat(found)


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_sampler_old_and_reference_logprobs_are_at_the_temperature_of_the_round(world, algorithm):
    """Against the plain forward pass of each model; the loops hold the new ones to the old."""
    each, parts, config = world(algorithm, **COOLING)
    before: list[Any] = []
    each.learner.before_fit = lambda: before.append(
        {name: weight.clone() for name, weight in each.policy.model.state_dict().items()}
    )
    steps = list(observed(parts.rounds(config, ExitStack()), parts.prompts, config))
    for step, temperature, weights in zip(steps, EXPECTED, before, strict=True):
        each.policy.model.load_state_dict(weights)
        mask = step.experience.response_mask
        policy = logprobs_at(temperature, each.policy.model, step)
        reference = logprobs_at(temperature, each.reference.model, step)
        for found, expected in (
            (step.experience.old_logprobs, policy),
            (step.experience.sampler_logprobs, policy),
            (step.experience.ref_logprobs, reference),
        ):
            torch.testing.assert_close(found[mask].double(), expected, atol=1e-5, rtol=1e-4)
        assert step.metrics["sampling/temperature"] == pytest.approx(temperature)
        other = logprobs_at(1.5 if temperature < 1 else 0.4, each.policy.model, step)
        assert (other - policy).abs().mean() > 0.1


def test_rounds_that_go_on_later_have_the_temperature_of_their_number(world):
    each, parts, config = world("rloo", **COOLING)
    whole = list(observed(parts.rounds(config, ExitStack()), parts.prompts, config))
    each, parts, config = world("rloo", **COOLING)
    next(iter(parts.prompts)), next(iter(parts.prompts))
    (last,) = observed(parts.rounds(config, ExitStack()), parts.prompts, config)
    assert last.index == 2
    assert each.policy.temperature == each.reference.temperature == 0.4
    assert last.metrics["sampling/temperature"] == whole[2].metrics["sampling/temperature"] == 0.4


def test_constant_temperature_leaves_the_policies_as_they_are(world):
    each, parts, config = world("rloo", steps=2)
    steps = list(observed(parts.rounds(config, ExitStack()), parts.prompts, config))
    assert [step.metrics["sampling/temperature"] for step in steps] == [1.5, 1.5]
    assert each.policy.temperature == each.reference.temperature == 1.5


def test_a_falling_temperature_makes_samples_less_diverse(world):
    each, parts, config = world("rloo", steps=3, final_temperature=0.01)
    each.learner.optimizers["policy"].still = True
    first, _, last = observed(parts.rounds(config, ExitStack()), parts.prompts, config)
    assert first.metrics["diversity/unique"] == 1
    assert last.metrics["diversity/self_overlap"] == 1
    assert last.metrics["diversity/unique"] <= 0.5
