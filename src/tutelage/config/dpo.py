"""Settings of direct preference optimisation (Rafailov et al. 2023)."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tutelage.config.adapters import LoRAConfig
from tutelage.config.base import Section
from tutelage.config.stage import Reference, StageSection
from tutelage.config.training import BatchConfig, OptimizerConfig, PrecisionConfig, Share

__all__ = ["DPOConfig", "DPOStage"]


class DPOConfig(Section):
    """The loss of direct preference optimisation."""

    beta: PositiveFloat = 0.1
    """What a nat of divergence from the reference costs: smaller moves further."""
    loss: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """sigmoid: the likelihood of the labels (DPO). hinge: no push beyond a margin of 1 (SLiC).
    ipo: a square around a margin of 1/2, finite for certain labels, too (IPO)."""
    smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """How often labels are believed to be the wrong way round (conservative DPO)."""
    length_normalise: bool = False
    """Compare answers by their mean per token, so that length pays nothing by itself. Margins are
    then smaller by the length: beta is ten to a hundred times larger."""
    target_margin: NonNegativeFloat = 0.0
    """By how much the better answer is to win, in units of beta times nats (SimPO's gamma)."""
    reference: Literal["start", "none"] = "start"
    """start: the model that training starts from. none: answers are compared by their own
    log-probability (SimPO, with `length_normalise`); nothing holds the policy near its start."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.loss == "ipo" and self.target_margin:
            raise ValueError(
                f"loss is 'ipo', which has a target margin of its own, and target_margin is "
                f"{self.target_margin:g}: set it to 0, or loss to 'sigmoid' or 'hinge'"
            )
        return self


class DPOStage(StageSection):
    """Trains a policy on preferences directly, without a reward model (DPO, IPO, SLiC, SimPO)."""

    kind: Literal["dpo"] = "dpo"
    model: Reference
    """The policy to start from; it is the reference as well."""
    preferences: Annotated[tuple[Reference, ...], Field(min_length=1)]
    """Stages or files of the `preference` schema."""
    dpo: DPOConfig = DPOConfig()
    limit: PositiveInt | None = None
    """Use only the first pairs."""
    epochs: PositiveFloat = 1.0
    """Passes over the pairs; a fraction stops early."""
    held_out: Share = 0.05
    """Share of the prompts whose pairs are kept to measure what was learned."""
    max_length: PositiveInt = 512
    """Tokens of a prompt with an answer; pairs with a longer one are left out and counted."""
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-6, warmup=0.1, schedule="linear")
    lora: LoRAConfig | None = None
    """Train adapters and leave the model's own weights as they are; unset trains all weights."""
    precision: PrecisionConfig = PrecisionConfig()

    def references(self) -> Iterator[str]:
        """The model and the preferences."""
        yield self.model
        yield from self.preferences
