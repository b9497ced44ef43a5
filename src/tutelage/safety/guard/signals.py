"""What turns a judge, and a reward model that likes long answers, into held-out signals.

judge          prefers ──against the answers before training──> 0.5 at first, then above it
reward model   scores ──less what it pays for a token──> whether answers of one length improve
"""

from collections.abc import Sequence

from tutelage.judging import Judge, in_both_orders
from tutelage.records import Comparison, Completion, Prompt, Score, ScoreStatus
from tutelage.rewards import Reward

__all__ = ["AgainstFirst", "AtEqualLength"]


class AtEqualLength:
    """A `Reward` without what it pays for length: score - max(0, slope) x tokens.

    People's liking for long answers is in every reward model of their labels. It makes the signal
    rise with a policy that only writes more, and fall with one that says the same in fewer words.
    Taking out what a score owes to length is after Singhal et al. 2023 (arXiv:2310.03716).
    What a reward says against long answers stays in: no gaming is more common than lengthening.
    """

    def __init__(self, reward: Reward, slope: float) -> None:
        """Args: the reward, and what it pays for a token that the policy wrote."""
        self.reward, self.slope = reward, max(0.0, slope)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """What failed has failed here too."""
        scores = self.reward(prompts, completions)
        return [
            Score(score.value - self.slope * sum(completion.written)) if score.ok else score
            for score, completion in zip(scores, completions, strict=True)
        ]


class AgainstFirst:
    """A `Reward` whose scores are a judge's probabilities against the first answers.

    A judge prefers; it does not score. What it can say of one answer is how likely it is better
    than the answer to the same prompt before training.
    """

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
