"""A verifier as the held-out signal: the share of right answers."""

from collections.abc import Sequence

from tutelage.evaluation.rater import Answer, Measure, Ratings
from tutelage.records import Prompt
from tutelage.rewards.verifiers import VerifierReward, load_verifier

__all__ = ["VerifierRater"]


class VerifierRater:
    """Rates answers as right or wrong."""

    def __init__(self, name: str) -> None:
        """Args: the verifier's name in recipes."""
        self.reward = VerifierReward(load_verifier(name))
        self.measures = (
            Measure(
                "accuracy",
                "Accuracy",
                "share",
                "higher",
                f"Answers that verifier {name} accepts; those it cannot check are left out.",
                "gold",
            ),
        )

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Ratings:
        """The verdicts; None where the verifier could not tell."""
        scores = self.reward.of_texts(prompts, [answer.text for answer in answers])
        return {"accuracy": [score.value if score.ok else None for score in scores]}
