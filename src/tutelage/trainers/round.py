"""What the rounds of all learners have in common, step by step; each learner's file has the loop.

sample_and_score ──> SampledRows ──lay_out──> Experience ──annotate──> old, reference, values
truncated_scores                                              └──> credit: each learner's own
update ──> metrics of the steps          report ──> metrics of the round
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from tutelage.algorithms import LossOutput, overlong_penalty, truncation_score
from tutelage.config import RoundsConfig, SamplingConfig, TruncationConfig
from tutelage.experience import Experience
from tutelage.generation import Engine, Sampling
from tutelage.models import Critic, Policy, training_mode
from tutelage.records import Completion, EncodedPrompt, Score
from tutelage.rewards import Reward, finite_or_failed, require_scores
from tutelage.trainers.evidence import SampledRows, sample
from tutelage.trainers.learner import Learner, Plan
from tutelage.trainers.rollout import agreement_guard, collate

__all__ = [
    "RoundStep",
    "annotate",
    "at_temperature",
    "present",
    "sample_and_score",
    "spread",
    "truncated_scores",
    "update",
    "usable_scores",
]


@dataclass(frozen=True)
class RoundStep:
    """One round: what was sampled, how it was scored, what the update did."""

    index: int
    prompts: Sequence[EncodedPrompt]
    """The prompt of each completion."""
    completions: Sequence[Completion]
    scores: Sequence[Score]
    experience: Experience
    metrics: Mapping[str, float]
    thrown: Sequence[Completion] = ()
    """Completions that were drawn beside, and not learned from."""

    @property
    def num_tokens(self) -> int:
        """Response tokens that were drawn."""
        return sum(sum(each.written) for each in (*self.completions, *self.thrown))

    @classmethod
    def of(
        cls,
        index: int,
        sampled: SampledRows,
        experience: Experience,
        metrics: Mapping[str, float],
        thrown: Sequence[Completion] = (),
    ) -> "RoundStep":
        """The round in which these rows were sampled."""
        rows = (sampled.prompts, sampled.completions, sampled.scores)
        return cls(index, *rows, experience, metrics, thrown)


def present(tensor: Tensor | None) -> Tensor:
    """A part of an experience that must have been computed by now."""
    assert tensor is not None, "the experience has not been annotated yet"
    return tensor


def at_temperature(
    index: int, sampling: Sampling, config: RoundsConfig, *policies: Policy
) -> Sampling:
    """What is sampled with in a round; where the temperature changes, the policies take it too.

    Old, new and reference log-probabilities are then those of the distribution that was sampled.

    Args:
        index: of the round.
        sampling: settings of all rounds.
        config: has the temperature of each.
        policies: whose log-probabilities the round will read.
    """
    if config.final_temperature is None:
        return sampling
    temperature = config.temperature_at(index)
    for policy in policies:
        policy.temperature = temperature
    return replace(sampling, temperature=temperature)


def sample_and_score(
    engine: Engine,
    reward: Reward,
    prompts: Sequence[EncodedPrompt],
    sampling: Sampling,
    learner: Learner,
    config: RoundsConfig,
) -> tuple[SampledRows, Experience]:
    """Samples completions, those of a prompt one after the other, and scores each as a whole.

    Returns:
        The rows, and their experience on the engine's side of the memory.

    Raises:
        TrainingError: a log-probability of the sampler is not finite.
        RewardError: more than `max_failed_share` of the completions could not be scored.
    """
    completions = sample(engine, prompts, sampling, learner.guard)
    repeated = [prompt for prompt in prompts for _ in range(sampling.samples_per_prompt)]
    scores = finite_or_failed(reward([prompt.prompt for prompt in repeated], completions))
    sampled = SampledRows(repeated, completions, scores)
    sampled.record_scores(learner.guard)
    require_scores(scores, config.max_failed_share)
    return sampled, collate(repeated, completions, scores, config.truncation.mode)


def annotate(
    experience: Experience,
    policy: Policy,
    reference: Policy,
    learner: Learner,
    plan: Plan,
    critic: Critic | None = None,
) -> Experience:
    """Adds old and reference log-probabilities, and values, in the first epoch's shapes.

    What frozen blocks make of the tokens comes first, and serves all of them and all epochs.
    """
    if policy.frozen_layers:
        experience = replace(experience, **learner.evaluate(policy.lower_states, experience, plan))

    def thoughts(rows: Experience) -> dict[str, Tensor]:
        states = policy.states(rows)
        found = {
            "old_logprobs": policy.logprobs(rows, states),
            "ref_logprobs": reference.logprobs(rows),
        }
        if critic is not None:
            found["values"] = critic.values(rows, states)
        return found

    return replace(experience, **learner.evaluate(thoughts, experience, plan))


def truncated_scores(
    experience: Experience, config: TruncationConfig, sampling: SamplingConfig
) -> Tensor:
    """The scores as truncation leaves them; `drop` has masked its rows already.

    What earlier turns of a conversation earned stays: the limit cut off the last one.
    """
    scores, amount = experience.scores, config.value
    before = 0.0 if experience.earned is None else experience.earned.sum(1)
    assert amount != "auto", "filled in from the reward model before training starts"
    match config.mode:
        case "replace":
            last = scores - before
            replaced = truncation_score(last, experience.truncated, kind="replace", value=amount)
            return torch.where(experience.truncated, before + replaced, scores)
        case "penalise":
            return truncation_score(scores, experience.truncated, kind="subtract", value=-amount)
        case "soft":
            late = overlong_penalty(
                experience.response_lengths,
                longest=sampling.max_tokens,
                buffer=cast(int, config.buffer),
                penalty=-amount,
            )
            # A prompt near the end of the context is cut off before max_tokens.
            return scores + torch.where(experience.truncated, amount, late)
    return scores


def usable_scores(scores: Tensor, experience: Experience, samples: int) -> Tensor:
    """Scores as `[prompts, samples]`, NaN where a row is learned from nowhere."""
    learnable = experience.response_mask.any(1)
    return torch.where(learnable, scores, torch.nan).view(-1, samples)


def spread(advantages: Tensor, experience: Experience) -> Tensor:
    """The advantage of each completion on each of its tokens."""
    return torch.where(experience.response_mask, advantages.reshape(-1, 1), 0.0)


def update(
    learner: Learner,
    loss: Callable[[Experience, float], LossOutput],
    sampled: SampledRows,
    experience: Experience,
    plan: Plan,
    config: RoundsConfig,
    models: Sequence[nn.Module],
    *,
    learnable: bool = True,
    train: Sequence[str] | None = None,
    count: Callable[[Experience], float] | None = None,
) -> dict[str, float]:
    """Epochs of steps on the frozen experience.

    Args:
        learnable: whether its numbers are finite; no step is taken if not.
        models: in training mode meanwhile.
        train: names of the models to step; all of them, when absent.
        count: what the loss of a minibatch is divided by; response tokens, when absent.

    Raises:
        TrainingError: the first minibatch's ratio is not 1, or too many numbers are not finite.
    """
    with training_mode(*models):
        metrics = learner.fit(
            loss,
            experience,
            plan if learnable else [],
            train=train,
            stop=lambda seen: _moved_too_far(seen, config.divergence_stop),
            observe=agreement_guard(experience, config.precision.compute),
            describe=partial(sampled.describe, experience=experience),
            count=count,
        )
    if not learnable:
        metrics |= {"train/skipped": 1.0, "train/not_finite": 1.0}
    return metrics


def _moved_too_far(metrics: Mapping[str, float], target: float | None) -> bool:
    """Schulman's approximate KL to the sampling policy exceeds 1.5 times its target."""
    return target is not None and metrics["policy/approx_kl_k3"] > 1.5 * target
