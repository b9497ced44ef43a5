"""What is to be answered: prompts with their answer lengths, the same on all sides."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from benchmarks.sides import lengths
from benchmarks.sides.shapes import END, FIRST_WORD, SHAPES

__all__ = ["Requests"]


@dataclass(frozen=True)
class Requests:
    """A seeded list of prompts; every answer ends by decree."""

    shape: str
    count: int
    shortest: int
    """Tokens of the shortest prompt."""
    longest: int
    """Tokens of the longest prompt."""
    answer: int
    """Tokens of the longest answer."""
    full: bool = False
    """Whether all answers have the longest length, without an end token."""
    seed: int = 0

    @property
    def _words(self) -> range:
        return range(FIRST_WORD, SHAPES[self.shape]["vocab_size"])

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Token ids."""
        return lengths.prompts(self.count, self.shortest, self.longest, self._words, self.seed)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each answer, end token included."""
        if self.full:
            return [self.answer] * self.count
        return lengths.forced_lengths(self.count, self.answer, self.seed)

    @cached_property
    def answers(self) -> list[list[int]]:
        """Random answers of these lengths, for sides that score or learn from a rollout."""
        return lengths.answers(self.lengths, self._words, END, self.seed + 1)

    @property
    def by_prompt(self) -> Mapping[tuple[int, ...], int]:
        """Answer length by prompt."""
        return {tuple(p): n for p, n in zip(self.prompts, self.lengths, strict=True)}

    @property
    def real_tokens(self) -> int:
        """Tokens of all prompts and answers, padding left out."""
        return sum(map(len, self.prompts)) + sum(self.lengths)
