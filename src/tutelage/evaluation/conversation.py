"""Rates conversations by what rates single answers.

conversation ──> each answer, with the conversation before it as its prompt ──rater──> mean
"""

from collections.abc import Sequence
from statistics import fmean

from tutelage.evaluation.rater import Answer, Measure, Rater, Ratings
from tutelage.records import Prompt, exchanges

__all__ = ["ConversationRater"]

_TURNS = Measure("turns", "Turns", "", None, "Answers in a conversation.")


class ConversationRater:
    """Each measure's mean over the answers of a conversation that it applies to."""

    def __init__(self, rater: Rater) -> None:
        """Args: what rates single answers."""
        self._rater = rater

    @property
    def measures(self) -> Sequence[Measure]:
        """The rater's own, and the number of turns."""
        return [*self._rater.measures, _TURNS]

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Ratings:
        """One number per conversation and measure; None where it applies to no answer."""
        turns = [_answers(p, a) for p, a in zip(prompts, answers, strict=True)]
        flat = [pair for pairs in turns for pair in pairs]
        ratings = self._rater.rate([prompt for prompt, _ in flat], [answer for _, answer in flat])
        lengths = [len(pairs) for pairs in turns]
        found: dict[str, Sequence[float | None]] = {
            key: _means(column, lengths) for key, column in ratings.items()
        }
        return found | {"turns": [float(length) for length in lengths]}


def _answers(prompt: Prompt, answer: Answer) -> list[tuple[Prompt, Answer]]:
    """Each answer by itself; of several only the last can have been cut off."""
    turns = [
        (before, Answer(turn.text, ended=True)) for before, turn in exchanges(prompt, answer.turns)
    ]
    if not turns:
        return [(prompt, answer)]
    return [*turns[:-1], (turns[-1][0], Answer(turns[-1][1].text, answer.ended))]


def _means(column: Sequence[float | None], lengths: Sequence[int]) -> list[float | None]:
    values, means = iter(column), []
    for length in lengths:
        present = [value for value in (next(values) for _ in range(length)) if value is not None]
        means.append(fmean(present) if present else None)
    return means
