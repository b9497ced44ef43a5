"""Held-out signals that compare: a judge as a score.

A judge prefers; it does not score. What it can say of one answer is how likely it is better than
the answer to the same prompt before training: 0.5 at first, above it as long as answers improve.
"""

import math
from collections.abc import Callable, Sequence

from tutelage.records import Comparison, Completion, Prompt, Score, ScoreStatus

__all__ = ["AgainstFirst", "Judge"]

Judge = Callable[[Sequence[Comparison]], Sequence[float | None]]
"""The probability that `a` is the better answer of each; None where it cannot tell."""


class AgainstFirst:
    """A `Reward` whose scores are a judge's probabilities against the first answers."""

    def __init__(self, judge: Judge, first: Sequence[str]) -> None:
        """Args: the judge, and each prompt's answer before training."""
        self.judge, self.first = judge, list(first)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """Asks in both orders and takes the mean, so that a taste for a position drops out."""
        pairs = zip(prompts, completions, self.first, strict=True)
        asked = [Comparison(prompt, now.text, before) for prompt, now, before in pairs]
        swapped = [Comparison(each.prompt, each.b, each.a) for each in asked]
        answers = zip(self.judge(asked), self.judge(swapped), strict=True)
        return [_score(forth, back) for forth, back in answers]


def _score(forth: float | None, back: float | None) -> Score:
    if forth is None or back is None:
        return Score.failed(ScoreStatus.UNSCORABLE, "the judge cannot tell")
    value = (forth + 1.0 - back) / 2
    if not math.isfinite(value):
        return Score.failed(ScoreStatus.NOT_FINITE, f"the judge said {forth} and {back}")
    return Score(value)
