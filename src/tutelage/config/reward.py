"""What a policy is rewarded for: the parts that add up."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from tutelage.config.base import Section
from tutelage.config.stage import Reference

__all__ = ["LengthPenaltyConfig", "RewardConfig"]


class LengthPenaltyConfig(Section):
    """-coefficient * max(0, tokens - threshold), in units of the reward model's sigma."""

    coefficient: NonNegativeFloat | Literal["auto"] = "auto"
    """Penalty per token; auto takes `slope_factor` times the reward model's own slope."""
    threshold: NonNegativeFloat | Literal["auto"] = "auto"
    """Tokens that cost nothing; auto takes the 90 % quantile of the reference's lengths."""
    slope_factor: PositiveFloat = 1.5
    """Below 1 the penalty is smaller than what the reward model pays for a token."""


class RewardConfig(Section):
    """What the policy is rewarded for: the parts add up."""

    model: Reference | None = None
    """The reward model."""
    clip: PositiveFloat | None = None
    """Bound on the reward model's score, in its sigmas."""
    length: LengthPenaltyConfig | None = None
    """Penalty on long completions."""
    functions: dict[str, float] = Field(default_factory=dict)
    """Python functions `path.py:name` with their weights."""

    def references(self) -> Iterator[str]:
        """The reward model."""
        if self.model is not None:
            yield self.model
