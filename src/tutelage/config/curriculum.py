"""Which prompts a round is about: settings of a curriculum."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tutelage.config.base import Section
from tutelage.config.training import Share

__all__ = ["CurriculumConfig"]

_OF_THE_WINDOW = ("low", "high", "pass_score")


class CurriculumConfig(Section):
    """Prompts are drawn by what there is to learn from them, as their latest scores tell."""

    by: Literal["learnability", "window"] = "learnability"
    """learnability: in proportion to the variance of a prompt's scores, p (1 - p) for scores of 0
    and 1. window: all alike whose pass rate lies between `low` and `high`, and no others."""
    uniform_share: float = Field(default=0.2, gt=0.0, le=1.0)
    """Share of the draws in which all prompts are alike, so that none is given up for good."""
    decay: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Weight of what was known of a prompt against its newest scores; 0 forgets at once."""
    low: Share = 0.2
    """Smallest pass rate inside the window."""
    high: Share = 0.8
    """Largest pass rate inside the window."""
    pass_score: float = 0.5
    """Score from which a completion has passed, in the units of the reward; for the window."""

    @model_validator(mode="after")
    def _window_is_one(self) -> Self:
        if self.low >= self.high:
            raise ValueError(
                f"low is {self.low:g} and high is {self.high:g}: low must be less than high"
            )
        fields = type(self).model_fields
        given = [n for n in _OF_THE_WINDOW if getattr(self, n) != fields[n].default]
        if given and self.by != "window":
            raise ValueError(
                f"{given[0]} is {getattr(self, given[0]):g} but by is {self.by!r}, which has no "
                "window: leave it out, or set by to 'window'"
            )
        return self
