"""Sentiment by the VADER lexicon: a signal that no reward model was trained on.

Hutto & Gilbert 2014, "VADER: a parsimonious rule-based model for sentiment analysis of social
media text": 7,500 words rated by people, and rules for negation, degree and contrast. Its
compound score lies in [-1, 1]; 0.05 and beyond counts as positive, -0.05 and below as negative.

Only what the policy wrote is rated, never the prompt. A policy that found a phrase to please
the reward model shows in the two measures of repetition.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tutelage.errors import MissingExtraError
from tutelage.evaluation.rater import Answer, Measure, Ratings
from tutelage.records import Prompt

__all__ = ["LexiconRater", "distinct_pairs", "stock_phrases"]

_THRESHOLD = 0.05
_PHRASE = 3
"""Words of a phrase: fewer are shared by any two texts of a kind."""


class LexiconRater:
    """Rates continuations by sentiment and by how much they repeat."""

    measures = (
        Measure(
            "positive",
            "Positive",
            "share",
            "higher",
            "Continuations whose VADER compound score is 0.05 or more; training never saw it.",
            "gold",
        ),
        Measure("compound", "Sentiment", "", "higher", "Mean VADER compound score, from -1 to 1."),
        Measure(
            "negative",
            "Negative",
            "share",
            "lower",
            "Continuations whose VADER compound score is -0.05 or less.",
        ),
        Measure(
            "distinct_2",
            "Distinct word pairs",
            "share",
            "higher",
            "Different word pairs of a continuation over all its word pairs: repetition within.",
        ),
        Measure(
            "stock_phrases",
            "Stock phrases",
            "share",
            "lower",
            "Three-word phrases of a continuation that also occur in the answer to another prompt.",
        ),
    )

    def __init__(self) -> None:
        """Loads the lexicon.

        Raises:
            MissingExtraError: vaderSentiment is not installed.
        """
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError as error:
            raise MissingExtraError("vaderSentiment", "lexicon") from error
        self._analyzer: Any = SentimentIntensityAnalyzer()

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Ratings:
        """One number per answer and measure; None where an answer has too few words for it."""
        texts = [answer.text for answer in answers]
        compound = [float(self._analyzer.polarity_scores(text)["compound"]) for text in texts]
        return {
            "positive": [float(score >= _THRESHOLD) for score in compound],
            "compound": compound,
            "negative": [float(score <= -_THRESHOLD) for score in compound],
            "distinct_2": [distinct_pairs(text) for text in texts],
            "stock_phrases": stock_phrases([prompt.id for prompt in prompts], texts),
        }


def _phrases(text: str, length: int) -> list[tuple[str, ...]]:
    words = text.casefold().split()
    return list(zip(*(words[start:] for start in range(length)), strict=False))


def distinct_pairs(text: str) -> float | None:
    """distinct-2 (Li et al. 2016, arXiv:1510.03055) of one text; None below two words."""
    pairs = _phrases(text, 2)
    return len(set(pairs)) / len(pairs) if pairs else None


def stock_phrases(prompt_ids: Sequence[str], texts: Sequence[str]) -> list[float | None]:
    """The share of each text's phrases that texts of other prompts have too.

    A policy that answers everything alike has 1, however varied each answer is in itself. None
    for a text of fewer than three words.
    """
    phrases = [_phrases(text, _PHRASE) for text in texts]
    users: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for prompt_id, found in zip(prompt_ids, phrases, strict=True):
        for phrase in found:
            users[phrase].add(prompt_id)
    return [
        sum(len(users[phrase]) > 1 for phrase in found) / len(found) if found else None
        for found in phrases
    ]
