"""How often a model's answers beat the baseline's, as a judge sees it.

prompt, answer, baseline's answer ──judge, both orders──> P(answer is better) ──mean──> win rate
"""

from collections.abc import Sequence

from tutelage.evaluation.rater import Answer, Measure, Rater, Ratings
from tutelage.judging import Judge, in_both_orders
from tutelage.records import Comparison, Prompt

__all__ = ["WinRateRater"]

_WIN = Measure(
    "win",
    "Wins against the baseline",
    "share",
    "higher",
    "Probability that the answer is better than the baseline's to the same prompt, by a judge that "
    "is asked in both orders; 0.5 for the same text.",
)


class WinRateRater:
    """Adds to another rater's measures how answers compare with the baseline's."""

    def __init__(
        self, rater: Rater, judge: Judge, prompts: Sequence[Prompt], baseline: Sequence[Answer]
    ) -> None:
        """Says who judges, and what the baseline has answered.

        Args:
            rater: whose measures come first.
            judge: a function of comparisons.
            prompts: all that will be rated.
            baseline: its answer to each.
        """
        self.rater, self.judge = rater, judge
        self._baseline = {
            prompt.messages: answer.text for prompt, answer in zip(prompts, baseline, strict=True)
        }

    @property
    def measures(self) -> Sequence[Measure]:
        """The other rater's, and the wins."""
        return [*self.rater.measures, _WIN]

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Ratings:
        """The other rater's ratings, and P(better than the baseline's); None where it cannot tell.

        Raises:
            RewardError: the judge returned what is no probability.
        """
        comparisons = [
            Comparison(prompt, answer.text, self._baseline[prompt.messages], prompt.id)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        asked = [comparison for comparison in comparisons if comparison.a != comparison.b]
        said = iter(in_both_orders(self.judge, asked))
        wins = [next(said) if each.a != each.b else 0.5 for each in comparisons]
        return {**self.rater.rate(prompts, answers), "win": wins}
