"""The rewards themselves: a reward model, a length penalty, a Python function."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tutelage.algorithms import length_penalty
from tutelage.data.function_call import call_function
from tutelage.distributed import Cores
from tutelage.models import RewardModel
from tutelage.records import Completion, Prompt, Score, ScoreStatus

__all__ = ["FunctionReward", "LengthPenalty", "ModelReward"]


class ModelReward:
    """A reward model's score, in its own sigmas, clipped on request."""

    def __init__(
        self, model: RewardModel, *, clip: float | None = None, cores: Cores | None = None
    ) -> None:
        """Args: model, the bound on the absolute score, and the cores that read texts."""
        self.model = model.eval()
        self.clip = clip
        self.cores = cores

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """Scores the text, not the tokens; a text too long for the model is unscorable."""
        return self.of_texts(prompts, [completion.text for completion in completions])

    def of_texts(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[Score]:
        """The same for texts that nobody has sampled just now."""
        scores = self.model.score(prompts, texts, cores=self.cores)
        return [self._score(value) for value in scores]

    def _score(self, value: float | None) -> Score:
        if value is None:
            return Score.failed(
                ScoreStatus.UNSCORABLE,
                f"prompt and answer exceed the reward model's {self.model.max_length} tokens",
            )
        if not math.isfinite(value):
            return Score.failed(ScoreStatus.NOT_FINITE, f"the reward model's score is {value}")
        return Score(value if self.clip is None else max(-self.clip, min(self.clip, value)))


class LengthPenalty:
    """-c max(0, T - T0) of the completion's own tokens."""

    def __init__(self, coefficient: float, threshold: int) -> None:
        """Args: c in score per token, T0 in tokens."""
        self.coefficient = coefficient
        self.threshold = threshold

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """One penalty per completion, 0 or below."""
        lengths = torch.tensor([len(completion.tokens) for completion in completions])
        penalties = length_penalty(lengths, coefficient=self.coefficient, threshold=self.threshold)
        return [Score(float(penalty)) for penalty in penalties]


class FunctionReward:
    """A Python function of (prompt, completion) that returns a number, or None to abstain.

    Called here, without a time limit: `FunctionProcess` can end one that does not return.
    """

    def __init__(self, function: Callable[[Prompt, Completion], Any], name: str) -> None:
        """Args: the function, and its name in messages."""
        self.function = function
        self.name = name

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """Calls the function on each; an exception fails that score only."""
        return [
            call_function(self.function, self.name, prompt, completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
