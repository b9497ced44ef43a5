"""What a verifier is: a program that tells a right answer from a wrong one, and a reward of it.

    Prompt (reference, check) ─┐
    text of the completion ────┴─ verify ──> Score: 1 right, 0 wrong, between: a share is right
                                             unscorable: the prompt says nothing to check against
                                             timeout, error: the checker could not tell

A verdict is about the answer, never about the checker: where a checker cannot do its work the
score has failed, and the sample is masked out instead of being taught as wrong.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from tutelage.records import Completion, Prompt, Score, ScoreStatus

__all__ = ["Verifier", "VerifierReward", "unscorable", "verdict"]


class Verifier(Protocol):
    """Checks one answer."""

    @property
    def at_once(self) -> int:
        """Answers that may be checked at the same time, each in a thread."""
        ...

    def verify(self, prompt: Prompt, text: str) -> Score:
        """The verdict on `text` as the answer to `prompt`."""
        ...


class VerifierReward:
    """A verifier as a reward of completions."""

    def __init__(self, verifier: Verifier) -> None:
        """Args: the verifier, which sees nothing of a completion but its text."""
        self.verifier = verifier

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """One verdict per completion."""
        return self.of_texts(prompts, [completion.text for completion in completions])

    def of_texts(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[Score]:
        """The same for texts that nobody has sampled just now."""
        if self.verifier.at_once == 1 or len(texts) < 2:
            return [self.verifier.verify(p, text) for p, text in zip(prompts, texts, strict=True)]
        with ThreadPoolExecutor(self.verifier.at_once) as pool:
            return list(pool.map(self.verifier.verify, prompts, texts))


def verdict(right: bool, notes: str = "") -> Score:
    """1 for a right answer, 0 for a wrong one."""
    return Score(float(right), notes=notes)


def unscorable(prompt: Prompt, missing: str) -> Score:
    """The score where a prompt has nothing to check an answer against."""
    return Score.failed(ScoreStatus.UNSCORABLE, f"prompt {prompt.id!r} has no {missing}")
