"""A judge model's rating as the reward, without a reward model between (d-RLAIF).

completion ──judge──> Σ i P(i), 1 to 10 ──> [-1, 1] ──minus the reference's──> score
"""

from collections.abc import Sequence
from statistics import fmean

from tutelage.judging import ModelJudge, Rating
from tutelage.records import Completion, Message, Prompt, Score, ScoreStatus
from tutelage.rewards.references import ReferenceAnswers

__all__ = ["JudgeReward"]

_LOWEST, _HIGHEST = 1.0, 10.0


class JudgeReward:
    """How good a judge says a completion is.

        R(x, y) = s(x, y) [- 1/M Σ_m s(x, y_m)],    s = 2 (Σ_i i P(i | x, y) - 1) / 9 - 1

    with y_m what the reference policy answered to the prompt: what is easy to answer well is then
    worth no more than what is hard. A rating that cannot be read is a failed score.

    Source: Lee et al. 2023 (arXiv:2309.00267), section 2.2.2. Departure: the reference's answers,
    which that has not.
    """

    def __init__(self, judge: ModelJudge, references: ReferenceAnswers | None = None) -> None:
        """Args: who rates, and the reference's answers where they are taken off."""
        self.judge, self.references = judge, references
        self._known: dict[tuple[Message, ...], float | None] = {}

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """One score per completion.

        Raises:
            JudgeError: the model cannot be asked.
        """
        ratings = self.judge.rate(prompts, [completion.text for completion in completions])
        scores = [_score(rating) for rating in ratings]
        if self.references is None:
            return scores
        self._rate_references(self.references, prompts)
        return [
            _less(score, self._known[prompt.messages])
            for prompt, score in zip(prompts, scores, strict=True)
        ]

    def _rate_references(self, references: ReferenceAnswers, prompts: Sequence[Prompt]) -> None:
        """Rates those of prompts that were not met before, in one call."""
        new = {p.messages: p for p in prompts if p.messages not in self._known}
        pairs = [(p, answer.text) for p in new.values() for answer in references.of(p)]
        ratings = self.judge.rate([p for p, _ in pairs], [text for _, text in pairs])
        values: dict[tuple[Message, ...], list[float]] = {messages: [] for messages in new}
        for (prompt, _), rating in zip(pairs, ratings, strict=True):
            if (score := _score(rating)).ok:
                values[prompt.messages].append(score.value)
        self._known |= {messages: fmean(v) if v else None for messages, v in values.items()}


def _score(rating: Rating) -> Score:
    if rating.value is None:
        over = rating.failure == "budget"
        status = ScoreStatus.ERROR if over else ScoreStatus.UNSCORABLE
        return Score.failed(status, "the judge's budget is spent" if over else rating.failure)
    return Score(2.0 * (rating.value - _LOWEST) / (_HIGHEST - _LOWEST) - 1.0)


def _less(score: Score, reference: float | None) -> Score:
    if not score.ok:
        return score
    if reference is None:
        reason = "the prompt has no answer of the reference that the judge could rate"
        return Score.failed(ScoreStatus.UNSCORABLE, reason)
    return Score(score.value - reference)
