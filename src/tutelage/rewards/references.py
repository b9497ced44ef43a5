"""Rewards measured against what the reference policy answers to the same prompt.

    samples.jsonl of the reference ──> {prompt: completions}
       ├── scores ──────> AgainstReferences: mean_m σ(r - r_m)
       └── lengths ─────> LengthPenaltyByPrompt: threshold = a quantile of them

A prompt is known by its messages: in a conversation, those after the first turn have no reference.
"""

import math
from collections.abc import Sequence

from tutelage.records import Completion, Message, Prompt, Score, ScoreStatus
from tutelage.rewards.parts import LengthPenalty
from tutelage.rewards.reward import Reward

__all__ = ["AgainstReferences", "LengthPenaltyByPrompt", "ReferenceAnswers"]


class ReferenceAnswers:
    """The completions of the reference policy, by prompt."""

    def __init__(self, pairs: Sequence[tuple[Prompt, Sequence[Completion]]]) -> None:
        """Args: prompts with their completions; a prompt that comes twice has those of both."""
        self._answers: dict[tuple[Message, ...], list[Completion]] = {}
        for prompt, completions in pairs:
            self._answers.setdefault(prompt.messages, []).extend(completions)

    def of(self, prompt: Prompt) -> Sequence[Completion]:
        """Those of a prompt; none where the reference was not asked."""
        return self._answers.get(prompt.messages, ())


class AgainstReferences:
    """How far a completion beats the reference's: preference as reward (PAR).

        R(x, y) = 1/M Σ_m σ(r(x, y) - r(x, y_m)),    y_m ~ pi_ref(. | x)

    In (0, 1), 1/2 for what is as good as the reference's answers. The slope is steep there and
    flat far above, so that what a wrong reward model pays for the absurd is worth little.

    Source: Fu et al. 2025 (arXiv:2502.18770).
    """

    def __init__(self, reward: Reward, references: ReferenceAnswers) -> None:
        """Args: the reward r, and the answers y_m."""
        self.reward, self.references = reward, references
        self._known: dict[tuple[Message, ...], tuple[float, ...]] = {}

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """One score per completion; without a scored reference it is unscorable."""
        self._score_references(prompts)
        scores = self.reward(prompts, completions)
        return [
            self._compare(score, self._known[prompt.messages])
            for prompt, score in zip(prompts, scores, strict=True)
        ]

    def _score_references(self, prompts: Sequence[Prompt]) -> None:
        """Scores those of prompts that were not met before, in one call."""
        new = {p.messages: p for p in prompts if p.messages not in self._known}
        pairs = [
            (prompt, answer) for prompt in new.values() for answer in self.references.of(prompt)
        ]
        scores = self.reward([p for p, _ in pairs], [a for _, a in pairs]) if pairs else []
        values: dict[tuple[Message, ...], list[float]] = {messages: [] for messages in new}
        for (prompt, _), score in zip(pairs, scores, strict=True):
            if score.ok:
                values[prompt.messages].append(score.value)
        self._known |= {messages: tuple(found) for messages, found in values.items()}

    @staticmethod
    def _compare(score: Score, references: Sequence[float]) -> Score:
        if not score.ok:
            return score
        if not references:
            reason = "the prompt has no answer of the reference that could be scored"
            return Score.failed(ScoreStatus.UNSCORABLE, reason)
        shares = [_sigmoid(score.value - reference) for reference in references]
        return Score(sum(shares) / len(shares))


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


class LengthPenaltyByPrompt:
    """-c max(0, T - T0(x)), where T0 is a quantile of the reference's lengths for the prompt.

    What one prompt asks for is long and another short; one threshold for all would cut the first
    and pay the second for filling up.
    """

    def __init__(
        self, coefficient: float, references: ReferenceAnswers, quantile: float, threshold: int
    ) -> None:
        """Says what a token costs, and from where on.

        Args:
            coefficient: score per token.
            references: whose lengths a prompt's threshold comes from.
            quantile: of them, in [0, 1], the smallest length that so large a share does not exceed.
            threshold: tokens, for prompts without references.
        """
        self.coefficient, self.quantile, self.threshold = coefficient, quantile, threshold
        self.references = references

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """One penalty per completion, 0 or below."""
        return [
            LengthPenalty(self.coefficient, self.threshold_of(prompt))([prompt], [completion])[0]
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def threshold_of(self, prompt: Prompt) -> int:
        """Tokens that cost nothing for this prompt."""
        lengths = sorted(len(answer.tokens) for answer in self.references.of(prompt))
        if not lengths:
            return self.threshold
        return lengths[max(0, math.ceil(self.quantile * len(lengths)) - 1)]
