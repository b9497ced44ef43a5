"""What a completion loses by repeating itself."""

from collections.abc import Sequence

from tutelage.algorithms import distinct_ngrams
from tutelage.records import Completion, Prompt, Score

__all__ = ["RepetitionPenalty"]


class RepetitionPenalty:
    """Minus the share of a completion's n-grams that it has written before.

        -(1 - |{g}| / Σ_g count(g)),    g the n-grams of the completion's own tokens

    0 where every n-gram is new or there is none, towards -1 where one is written again and again.
    Tokens are the policy's, so that it holds for every language.
    """

    def __init__(self, size: int = 3) -> None:
        """Args: size, tokens in a row."""
        self.size = size

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """One penalty per completion, above -1 and 0 at most."""
        return [Score(self._penalty(completion)) for completion in completions]

    def _penalty(self, completion: Completion) -> float:
        if len(completion.tokens) < self.size:
            return 0.0
        return distinct_ngrams([completion.tokens], self.size) - 1.0
