"""Dynamic sampling: a round goes on drawing until enough of its groups can teach something.

Yu et al. 2025 (DAPO, arXiv:2503.14476), section 3.2. Completions of a prompt that are all worth the
same have the advantage 0. As a policy gets good, or hopeless, at more prompts, fewer and fewer of a
round's groups carry a gradient, and its noise grows.

    prompts ──> groups ──worth the same──> thrown away
       ^          └─ differ ──> kept ──enough, or extra_batches are used up──> the round
       └──────────────────── not enough ──┘
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.config import GRPOConfig
from tutelage.experience import Experience
from tutelage.generation import Engine, Sampling
from tutelage.records import Completion, EncodedPrompt, Score
from tutelage.rewards import Reward
from tutelage.trainers.evidence import SampledRows
from tutelage.trainers.learner import Learner
from tutelage.trainers.rollout import collate, group_metrics, has_signal
from tutelage.trainers.round import sample_and_score, truncated_scores, usable_scores

__all__ = ["DrawnGroups", "MorePrompts", "draw_groups"]

MorePrompts = Callable[[], Sequence[EncodedPrompt]]
"""A further batch of prompts for the round under way."""


@dataclass(frozen=True)
class DrawnGroups:
    """What a round learns from, and what else was drawn for it."""

    sampled: SampledRows
    experience: Experience
    worth: Tensor
    """`[prompts, samples]` of all that were drawn, NaN where a completion counts nowhere."""
    scores: Sequence[Score]
    """Of all that were drawn."""
    thrown: Sequence[Completion]
    """Drawn and not learned from."""

    def metrics(self) -> dict[str, float]:
        """`group_metrics` of all groups that were drawn, and `group/thrown`, the share that is not
        learned from.
        """
        thrown = len(self.thrown) / max(1, self.worth.numel())
        return group_metrics(self.worth) | {"group/thrown": thrown}


def draw_groups(
    engine: Engine,
    reward: Reward,
    prompts: Sequence[EncodedPrompt],
    sampling: Sampling,
    learner: Learner,
    config: GRPOConfig,
    more: MorePrompts | None,
) -> DrawnGroups:
    """Samples and scores groups; with `extra_batches`, until as many as `prompts` differ inside.

    What is over at the end is thrown away, too, so that no round is larger than the others. Where
    too few differ after the last batch the round is smaller; where none does, it is the first
    batch, as it came.

    Args:
        engine, reward, sampling, learner, config: as for `sample_and_score`.
        prompts: the first batch.
        more: gives further ones.

    Raises:
        TrainingError, RewardError: as `sample_and_score`.
    """

    def draw(batch: Sequence[EncodedPrompt]) -> tuple[SampledRows, Tensor]:
        sampled, experience = sample_and_score(engine, reward, batch, sampling, learner, config)
        scores = truncated_scores(experience, config.truncation, config.sampling)
        return sampled, usable_scores(scores, experience, sampling.samples_per_prompt)

    batches = [draw(prompts)]
    extra = config.extra_batches if more is not None else 0
    while len(batches) <= extra and sum(_num_differing(w) for _, w in batches) < len(prompts):
        assert more is not None
        batches.append(draw(more()))
    worth = torch.cat([worth for _, worth in batches])
    differing = has_signal(worth).nonzero().squeeze(1).tolist()[: len(prompts)]
    first = list(range(len(prompts)))
    return _divided(batches, worth, (differing or first) if extra else first, config)


def _num_differing(worth: Tensor) -> int:
    return int(has_signal(worth).sum())


def _divided(
    batches: Sequence[tuple[SampledRows, Tensor]],
    worth: Tensor,
    kept: Sequence[int],
    config: GRPOConfig,
) -> DrawnGroups:
    """The rows of the kept groups, and the others."""
    prompts = [prompt for rows, _ in batches for prompt in rows.prompts]
    completions = [completion for rows, _ in batches for completion in rows.completions]
    scores = [score for rows, _ in batches for score in rows.scores]
    samples = worth.shape[1]
    chosen = [group * samples + i for group in kept for i in range(samples)]
    others = sorted(set(range(len(completions))) - set(chosen))
    sampled = SampledRows(
        [prompts[row] for row in chosen],
        [completions[row] for row in chosen],
        [scores[row] for row in chosen],
    )
    experience = collate(
        sampled.prompts, sampled.completions, sampled.scores, config.truncation.mode
    )
    return DrawnGroups(sampled, experience, worth, scores, [completions[row] for row in others])
