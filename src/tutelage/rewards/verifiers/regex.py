"""The form of an answer by a regular expression: `regex:(?s)<think>.*</think>.*`.

The whole answer must match. The pattern is the recipe's own, but a completion may be written to
make matching take for ever, so that matching ends at a deadline and the score is then a timeout.
"""

from typing import Any

import regex

from tutelage.errors import ConfigError
from tutelage.records import Prompt, Score, ScoreStatus
from tutelage.rewards.verifiers.verifier import verdict

__all__ = ["Regex"]


class Regex:
    """Right when the whole answer matches."""

    at_once = 1

    def __init__(self, pattern: str, *, seconds: float = 0.5) -> None:
        """Args: the pattern, and how long matching one answer may take.

        Raises:
            ConfigError: the pattern cannot be read.
        """
        self.seconds = seconds
        try:
            self._pattern: Any = regex.compile(pattern)
        except regex.error as error:
            raise ConfigError(f"regex:{pattern} is no regular expression: {error}") from error

    def verify(self, prompt: Prompt, text: str) -> Score:
        """1 or 0; the prompt is not looked at."""
        try:
            return verdict(self._pattern.fullmatch(text, timeout=self.seconds) is not None)
        except TimeoutError:
            return Score.failed(
                ScoreStatus.TIMEOUT, f"the pattern took more than {self.seconds:g} s on an answer"
            )
