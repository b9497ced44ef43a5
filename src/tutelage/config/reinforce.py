"""Settings of REINFORCE (Williams 1992) and REINFORCE++ (Hu 2025)."""

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from tutelage.config.rounds import ClippedConfig, KLConfig, PolicyGradientConfig
from tutelage.config.training import Share

__all__ = ["ReinforceConfig", "ReinforcePPConfig"]


class ReinforceConfig(PolicyGradientConfig):
    """REINFORCE: one step of the plain policy gradient on each round."""

    section: ClassVar[str] = "reinforce"

    kl: KLConfig = KLConfig()
    gamma: Share = 1.0
    """Discount per token. Below 1 the KL term no longer matches its optimum."""
    baseline: Literal["moving", "batch", "none"] = "moving"
    """What is subtracted from the returns. moving: the mean return of earlier rounds. batch: that
    of the round itself. none: nothing, at the price of a noisy gradient."""
    baseline_decay: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Weight of the earlier rounds in the moving baseline."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch.minibatch != self.rows_per_step:
            raise ValueError(
                f"batch.minibatch is {self.batch.minibatch} and a round has {self.rows_per_step} "
                "completions: REINFORCE has no ratio, so a second step would learn from samples of "
                f"another policy; set it to {self.rows_per_step}, or take reinforce++ or rloo"
            )
        if self.baseline == "batch" and self.rows_per_step < 2:
            raise ValueError(
                "baseline is 'batch' and a round has 1 completion, whose advantage would be 0: "
                "raise prompts_per_step or set baseline to 'moving'"
            )
        return self


class ReinforcePPConfig(ClippedConfig):
    """REINFORCE++: returns normalised over the round, and the clip of PPO; no critic."""

    section: ClassVar[str] = "reinforce_pp"

    epochs: PositiveInt = 1
    """Passes over each round's experience."""
    kl: KLConfig = KLConfig()
    gamma: Share = 1.0
    """Discount per token. Below 1 the KL term no longer matches its optimum."""
    baseline: Literal["none", "group"] = "none"
    """group: the mean score of a prompt's completions is subtracted before the round is normalised
    (REINFORCE++-baseline)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.baseline == "group" and self.sampling.samples_per_prompt < 2:
            raise ValueError(
                "baseline is 'group', the mean of a prompt's completions, and "
                "sampling.samples_per_prompt is 1: raise it, or set baseline to 'none'"
            )
        if self.rows_per_step < 2:
            raise ValueError(
                "returns are normalised over the round, which needs at least 2 completions, "
                "found 1: raise prompts_per_step"
            )
        return self
