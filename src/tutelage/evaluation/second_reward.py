"""A second reward model as held-out signal, for data without a gold score.

Trained on preferences the policy's own reward model never saw, it does not share that model's
accidents, and a policy that only exploits those does not rise here. It does share what both
data sets have in common: a bias of the annotators, for length for instance, raises both.
"""

from collections.abc import Sequence

from tutelage.evaluation.rater import Answer, Measure, Ratings
from tutelage.models import RewardModel
from tutelage.records import Prompt

__all__ = ["SecondRewardRater"]


class SecondRewardRater:
    """Rates answers by a reward model that took no part in training."""

    measures = (
        Measure(
            "judge",
            "Second reward model",
            "sigma",
            "higher",
            "Score of a reward model trained on other preferences than the policy's own.",
            "gold",
        ),
    )

    def __init__(self, model: RewardModel) -> None:
        """Args: the second model."""
        self.model = model.eval()

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Ratings:
        """Normalised scores; None for a text too long to be scored whole."""
        return {"judge": self.model.score(prompts, [answer.text for answer in answers])}
