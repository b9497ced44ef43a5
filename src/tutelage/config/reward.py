"""What a policy is rewarded for: the parts that add up."""

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from tutelage.config.base import Section
from tutelage.config.ensemble import EnsembleRewardConfig, GateConfig
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
    ensemble: EnsembleRewardConfig | None = None
    """Score by several reward models; `clip` then bounds the score of each."""
    gate: GateConfig | None = None
    """Thresholds that `model` must have passed before a policy is trained against it."""
    length: LengthPenaltyConfig | None = None
    """Penalty on long completions."""
    functions: dict[str, float] = Field(default_factory=dict)
    """Python functions `path.py:name` with their weights."""

    def references(self) -> Iterator[str]:
        """The reward model, and those of the ensemble."""
        if self.model is not None:
            yield self.model
        if self.ensemble is not None:
            yield from self.ensemble.references()

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {name for name in ("ensemble", "gate") if getattr(self, name) is None}
        return {key: value for key, value in serialise(self).items() if key not in unused}

    @model_validator(mode="after")
    def _about_a_model(self) -> Self:
        for name in ("ensemble", "gate"):
            if getattr(self, name) is not None and self.model is None:
                raise ValueError(f"{name} is set and model is not, which it is about: set model")
        return self
