"""Held-out signals that compare: a judge as a score.

A judge prefers; it does not score. What it can say of one answer is how likely it is better than
the answer to the same prompt before training: 0.5 at first, above it as long as answers improve.
"""

from collections.abc import Sequence

from tutelage.judging import Judge, in_both_orders
from tutelage.records import Comparison, Completion, Prompt, Score, ScoreStatus

__all__ = ["AgainstFirst"]


class AgainstFirst:
    """A `Reward` whose scores are a judge's probabilities against the first answers."""

    def __init__(self, judge: Judge, first: Sequence[str]) -> None:
        """Args: the judge, and each prompt's answer before training."""
        self.judge, self.first = judge, list(first)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """Asks in both orders and takes the mean, so that a taste for a position drops out."""
        pairs = zip(prompts, completions, self.first, strict=True)
        asked = [Comparison(prompt, now.text, before) for prompt, now, before in pairs]
        return [_score(value) for value in in_both_orders(self.judge, asked)]


def _score(value: float | None) -> Score:
    if value is None:
        return Score.failed(ScoreStatus.UNSCORABLE, "the judge cannot tell")
    return Score(value)
