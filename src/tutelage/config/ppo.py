"""Settings of PPO (Schulman et al. 2017; Ziegler et al. 2019)."""

from typing import ClassVar, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from tutelage.config.rounds import ClippedConfig, KLConfig
from tutelage.config.training import OptimizerConfig, Share

__all__ = ["PPOConfig"]


class PPOConfig(ClippedConfig):
    """Proximal policy optimisation of a language model."""

    section: ClassVar[str] = "ppo"
    has_critic: ClassVar[bool] = True

    kl: KLConfig = KLConfig()
    value_clip: PositiveFloat | None = None
    """Clip range of the value loss, in reward units or in sigmas when normalised."""
    value_normalise: bool = False
    """Divide the value loss by the variance of the value error: invariant to reward scale."""
    value_coefficient: NonNegativeFloat = 0.5
    """Weight of the value loss."""
    gamma: Share = 1.0
    """Discount per token. Below 1 the KL term no longer matches its optimum."""
    lam: Share = 0.95
    """lambda of GAE for the policy's advantages."""
    value_lam: Share = 1.0
    """lambda of GAE for the critic's targets; 1 is the Monte-Carlo return."""
    whiten_advantages: bool = True
    """Scale advantages to mean 0 and variance 1 over the round."""
    critic_warmup: NonNegativeInt = 0
    """Rounds that train the critic alone."""
    critic: OptimizerConfig = OptimizerConfig(learning_rate=1e-5)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.whiten_advantages and self.rows_per_step < 2:
            raise ValueError(
                "whiten_advantages needs at least 2 completions in a round, found 1: raise "
                "prompts_per_step or set whiten_advantages to false"
            )
        if self.critic_warmup >= self.steps:
            raise ValueError(
                f"critic_warmup is {self.critic_warmup} of {self.steps} steps: the policy would "
                "never be trained"
            )
        return self
