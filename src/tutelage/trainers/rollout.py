"""From sampled completions to an experience, and what to report and check about it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from tutelage.algorithms import (
    distinct_ngrams,
    explained_variance,
    importance_metrics,
    kl_estimate,
    masked_mean,
    masked_variance,
    self_overlap,
    unique_share,
    zero_outside,
)
from tutelage.errors import TrainingError
from tutelage.experience import Experience
from tutelage.records import Completion, EncodedPrompt, Score

__all__ = [
    "agreement_guard",
    "collate",
    "diversity_metrics",
    "group_metrics",
    "has_signal",
    "reward_metrics",
    "rollout_metrics",
    "score_metrics",
]

_RATIO_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}
"""A float32 recomputation in the same shapes is equal bit for bit; the slack is for devices
whose kernels are not deterministic."""
_SAMPLER_TOLERANCE = {"float32": 0.01, "bfloat16": 0.1}
"""Mean |log pi_old - log mu| in nats: float32 engines agree to 1e-5, a stale or differently
tempered sampler is off by tenths."""
_NO_SPREAD = 1e-6
"""Standard deviation of a group's rewards below which they differ by rounding alone."""


def collate(
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Completion],
    scores: Sequence[Score],
    truncation: Literal["replace", "penalise", "soft", "drop", "bootstrap", "keep"],
) -> Experience:
    """Lays completions out in rows; failed scores, and truncated rows on `drop`, are masked."""
    experience = Experience.collate([p.tokens for p in prompts], completions, scores, pad=0)
    if truncation == "drop":
        kept = experience.response_mask & ~experience.truncated[:, None]
        experience = replace(experience, response_mask=kept)
    return experience


def agreement_guard(experience: Experience, compute: str) -> Callable[[Mapping[str, float]], None]:
    """A check of the first minibatch: before any update the ratio pi / pi_old is 1.

    The strongest cheap alarm there is: a lost temperature, dropout left on, a shifted mask, a
    stale sampler or padding that leaks all show here, before any weight has moved.

    Raises:
        TrainingError: from the returned function, with the likely causes.
    """
    seen = False

    def check(metrics: Mapping[str, float]) -> None:
        nonlocal seen
        if seen:
            return
        seen = True
        low, high = metrics["policy/ratio_min"], metrics["policy/ratio_max"]
        gap = float(_sampler_metrics(experience)["sampler/gap_mean"])
        tolerance = _RATIO_TOLERANCE[compute]
        if math.isfinite(low) and max(1.0 - low, high - 1.0) > tolerance:
            raise TrainingError(
                f"the ratio pi / pi_old lies in [{low:.4g}, {high:.4g}] before the first update, "
                f"expected 1 within {tolerance:g}. Likely causes: dropout is on, the temperature "
                "differs between sampling and training, masks or positions are shifted, padding "
                "leaks into attention, or the policy changed since its log-probabilities were taken"
            )
        if gap > _SAMPLER_TOLERANCE[compute]:
            raise TrainingError(
                f"the sampler's log-probabilities differ from the training engine's by {gap:.3g} "
                f"nats on average, expected at most {_SAMPLER_TOLERANCE[compute]:g}. Likely "
                "causes: the sampler has stale weights or another temperature, or truncates its "
                "distribution"
            )

    return check


def _sampler_metrics(experience: Experience) -> dict[str, Tensor]:
    assert experience.old_logprobs is not None
    return importance_metrics(
        experience.old_logprobs, experience.sampler_logprobs, experience.response_mask, cap=2.0
    )


def reward_metrics(
    scores: Sequence[Score], experience: Experience, kl: Tensor, beta: float
) -> dict[str, float]:
    """`score_metrics`, and what is left of the scores after the KL penalty."""
    metrics = score_metrics(scores)
    rows = experience.response_mask.any(1)
    sequence_kl = zero_outside(kl, experience.response_mask).sum(1)
    total = (experience.scores - beta * sequence_kl)[rows]
    metrics["reward/total"] = float(total.mean()) if len(total) else 0.0
    return metrics


def score_metrics(scores: Sequence[Score]) -> dict[str, float]:
    """Score, its parts and its spread over the completions that could be scored."""
    usable = [score for score in scores if score.ok]
    values = torch.tensor([score.value for score in usable], dtype=torch.float64)
    metrics = {
        "reward/score": float(values.mean()) if len(values) else 0.0,
        "reward/std": float(values.std(correction=0)) if len(values) else 0.0,
        "reward/failed": 1.0 - len(usable) / max(1, len(scores)),
    }
    for part in dict.fromkeys(name for score in usable for name in score.parts):
        present = [score.parts[part] for score in usable if part in score.parts]
        metrics[f"reward/{part}"] = sum(present) / len(present)
    for measure in dict.fromkeys(name for score in usable for name in score.measures):
        known = [score.measures[measure] for score in usable if measure in score.measures]
        metrics[f"reward/{measure}"] = sum(known) / len(known)
    return metrics


def rollout_metrics(experience: Experience, kl: Tensor) -> dict[str, float]:
    """KL, lengths and endings over the round; advantages and critic where there are."""
    mask = experience.response_mask
    rows = mask.any(1)
    assert experience.old_logprobs is not None and experience.ref_logprobs is not None
    k3 = kl_estimate(experience.old_logprobs, experience.ref_logprobs, "k3")
    lengths = experience.response_lengths[rows].float()
    truncated = experience.truncated[rows].float()
    measured = {
        "kl/sequence": zero_outside(kl, mask).sum(1)[rows].mean()
        if rows.any()
        else torch.zeros(()),
        "kl/token": masked_mean(kl, mask),
        "kl/k3": masked_mean(k3, mask),
        "response/length": lengths.mean() if len(lengths) else torch.zeros(()),
        "response/truncated": truncated.mean() if len(truncated) else torch.zeros(()),
        **_critic_metrics(experience),
        **_advantage_metrics(experience),
        **_sampler_metrics(experience),
    }
    metrics = {name: float(value) for name, value in measured.items()}
    # Of all that was sampled: `drop` masks truncated rows out, and would leave none to be seen.
    metrics["response/stop_rate"] = 1.0 - int(experience.truncated.sum()) / max(1, len(rows))
    return metrics


def group_metrics(groups: Tensor) -> dict[str, float]:
    """How much the completions of a prompt differ, which is all that a group can teach.

    Args:
        groups: `[prompts, samples]`, NaN where a completion counts nowhere.

    Returns:
        `group/std`, the mean over prompts of the standard deviation of their rewards, and
        `group/no_signal`, the share of prompts whose completions are all worth the same.
    """
    spreads = _spreads(groups)
    return {
        "group/std": float(spreads.sum()) / max(1, len(spreads)),
        "group/no_signal": float((~has_signal(groups)).sum()) / max(1, len(spreads)),
    }


def has_signal(groups: Tensor) -> Tensor:
    """`[prompts]`: whether the completions of a prompt are worth different things.

    Args:
        groups: as for `group_metrics`.
    """
    return _spreads(groups) > _NO_SPREAD


def _spreads(groups: Tensor) -> Tensor:
    """`[prompts]` standard deviations of those that count; 0 where fewer than two do."""
    kept = [row[~row.isnan()] for row in groups.double()]
    found = [float(row.std(correction=0)) if len(row) > 1 else 0.0 for row in kept]
    return torch.tensor(found, dtype=torch.float64)


def _advantage_metrics(experience: Experience) -> dict[str, Tensor]:
    if experience.advantages is None:
        return {}
    return {
        "advantage/mean": masked_mean(experience.advantages, experience.response_mask),
        "advantage/std": masked_variance(experience.advantages, experience.response_mask).sqrt(),
    }


def _critic_metrics(experience: Experience) -> dict[str, Tensor]:
    if experience.values is None or experience.returns is None:
        return {}
    fit = explained_variance(experience.values, experience.returns, experience.response_mask)
    return {"value/explained_variance": fit}


def diversity_metrics(completions: Sequence[Completion], samples: int) -> dict[str, float]:
    """How different the completions of a round are; all that were sampled count.

    Each turn of a conversation is a text of its own: the last token of one and the first of the
    next are no neighbours.

    Args:
        completions: those of a prompt one after the other.
        samples: completions of each prompt; of one alone there is no `diversity/self_overlap`.
    """
    texts = [_written(completion) for completion in completions]
    turns = [turn for text in texts for turn in text]
    tokens = [[token for turn in text for token in turn] for text in texts]
    metrics = {
        "diversity/distinct_1": distinct_ngrams(turns, 1),
        "diversity/distinct_2": distinct_ngrams(turns, 2),
        "diversity/unique": unique_share(tokens),
    }
    if samples > 1:
        groups = [tokens[start : start + samples] for start in range(0, len(tokens), samples)]
        metrics["diversity/self_overlap"] = self_overlap(groups)
    return metrics


def _written(completion: Completion) -> list[Sequence[int]]:
    """The tokens of each of the policy's turns."""
    if not completion.turns:
        return [completion.tokens]
    return [completion.tokens[turn.start : turn.end] for turn in completion.turns]
