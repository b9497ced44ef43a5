"""What a policy is rewarded for: the protocol, and how rewards combine.

    Sum({"model": (1.0, clip(model)), "length": (1.0, LengthPenalty(...))})
      └─> Score(value, parts={"model": ..., "length": ...})   parts reach the log

A reward that cannot be computed is a failed score, never a zero: one failed part fails the
sum, and the sample is masked out of everything.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from tutelage.errors import ConfigError, RewardError
from tutelage.records import Completion, Prompt, Score, ScoreStatus

__all__ = ["NoReward", "Reward", "Sum", "finite_or_failed", "require_scores"]

_LARGEST = torch.finfo(torch.float32).max


class Reward(Protocol):
    """Scores whole completions."""

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """One score per completion, in order; `prompts[i]` is what `completions[i]` answers."""
        ...


class Sum:
    """The weighted sum of named rewards, with each one's contribution."""

    def __init__(self, parts: Mapping[str, tuple[float, Reward]]) -> None:
        """Refuses an empty sum and weights that are not finite."""
        if not parts:
            raise ConfigError(
                "a reward needs at least one part, found none: set reward.model, "
                "reward.functions, reward.verifiers, reward.judge or reward.length"
            )
        for name, (weight, _) in parts.items():
            if not math.isfinite(weight):
                raise ConfigError(f"the weight of reward {name!r} is {weight}, expected a number")
        self.parts = dict(parts)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """Adds the parts up; the first part that failed decides the failure."""
        columns = {
            name: (weight, reward(prompts, completions))
            for name, (weight, reward) in self.parts.items()
        }
        return [
            _add({name: (weight, scores[i]) for name, (weight, scores) in columns.items()})
            for i in range(len(completions))
        ]


class NoReward:
    """For a learner that compares completions: there is nothing that could score them."""

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """Refuses to score."""
        raise RewardError("completions are compared by a judge here, and nothing scores them")


def _add(row: Mapping[str, tuple[float, Score]]) -> Score:
    for name, (_, score) in row.items():
        if not score.ok:
            return Score.failed(score.status, f"{name}: {score.notes}")
        if not math.isfinite(score.value):
            return Score.failed(ScoreStatus.NOT_FINITE, f"{name}: the score is {score.value}")
    parts = {name: weight * score.value for name, (weight, score) in row.items()}
    measures = {key: value for _, score in row.values() for key, value in score.measures.items()}
    return Score(sum(parts.values()), parts, measures=measures)


def finite_or_failed(scores: Sequence[Score]) -> list[Score]:
    """The scores; one that claims to be usable and is no float32 number has failed."""
    return [
        Score.failed(ScoreStatus.NOT_FINITE, f"the score is {score.value}, beyond float32")
        if score.ok and not abs(score.value) <= _LARGEST
        else score
        for score in scores
    ]


def require_scores(scores: Sequence[Score], max_failed_share: float) -> None:
    """Stops when too many completions could not be scored, and always when none could.

    Raises:
        RewardError: naming the share and the first reasons.
    """
    failed = [score for score in scores if not score.ok]
    allowed = len(failed) <= max_failed_share * len(scores) and len(failed) < len(scores)
    if not failed or allowed:
        return
    reasons = list(dict.fromkeys(f"{score.status}: {score.notes}" for score in failed))
    raise RewardError(
        f"{len(failed)} of {len(scores)} completions could not be scored, at most "
        f"{max_failed_share:.0%} are allowed (max_failed_share). First reasons: "
        + "; ".join(reasons[:3])
    )
