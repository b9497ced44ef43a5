"""Settings of PPO (Schulman et al. 2017; Ziegler et al. 2019)."""

from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from tutelage.config.alarms import AlarmsConfig
from tutelage.config.base import Section
from tutelage.config.training import BatchConfig, OptimizerConfig, PrecisionConfig, Share

__all__ = ["KLConfig", "PPOConfig", "SamplingConfig", "TruncationConfig"]


class SamplingConfig(Section):
    """How completions are drawn."""

    temperature: PositiveFloat = 1.0
    """Divides the logits, alike in sampling, old, new and reference log-probabilities."""
    max_tokens: PositiveInt = 96
    """Longest completion; what is cut off there is truncated."""
    samples_per_prompt: PositiveInt = 1
    """Completions drawn for each prompt."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Nucleus sampling. Only 1.0 is allowed in training rollouts."""
    top_k: NonNegativeInt = 0
    """Keep the k most likely tokens. Only 0, meaning all, is allowed in training rollouts."""
    batch_size: PositiveInt = 256
    """Completions decoded side by side."""


class KLConfig(Section):
    """What holds the policy near the reference."""

    coefficient: NonNegativeFloat = 0.05
    """beta of the per-token KL in the reward."""
    estimator: str = "k1"
    """Estimator in the reward. Only k1: the others change the optimum."""
    target: PositiveFloat | None = None
    """KL per sequence that an adaptive beta steers to; unset keeps beta fixed."""
    horizon: PositiveInt = 10_000
    """Sequences over which an adaptive beta adjusts."""
    loss_coefficient: NonNegativeFloat = 0.0
    """Weight of the full-distribution KL(policy || reference) in the loss."""
    old_policy_coefficient: NonNegativeFloat = 0.0
    """Weight of the full-distribution KL(policy || policy at sampling time) in the loss."""

    @field_validator("estimator")
    @classmethod
    def _k1_only(cls, value: str) -> str:
        if value != "k1":
            raise ValueError(
                f"found {value!r}, only 'k1' is allowed in the reward: k2 and k3 have the wrong "
                "expected gradient there and converge to another policy than "
                "pi_ref exp(r / beta); for a low-variance penalty set kl.loss_coefficient"
            )
        return value


class TruncationConfig(Section):
    """What happens to a completion that the token limit cut off."""

    mode: Literal["replace", "penalise", "drop", "bootstrap", "keep"] = "penalise"
    """replace: the score becomes `value`. penalise: `value` is added to the score. drop: the row
    is masked out. bootstrap: the critic's value of the last state is added as if the episode went
    on. keep: nothing."""
    value: float | Literal["auto"] = -1.0
    """The replacement score (replace) or the amount added (penalise). auto takes one sigma less
    than the reward model's lowest score of the reference's answers."""


class PPOConfig(Section):
    """Proximal policy optimisation of a language model."""

    steps: PositiveInt = 100
    """Rollout-and-update rounds."""
    prompts_per_step: PositiveInt = 64
    """Prompts sampled in each round."""
    epochs: PositiveInt = 2
    """Passes over each round's experience."""
    batch: BatchConfig = BatchConfig()
    sampling: SamplingConfig = SamplingConfig()
    kl: KLConfig = KLConfig()
    truncation: TruncationConfig = TruncationConfig()
    clip: PositiveFloat = 0.2
    """epsilon of the clipped surrogate."""
    clip_high: PositiveFloat | None = None
    """Upper epsilon where it differs from the lower (clip-higher)."""
    dual_clip: float | None = Field(default=None, gt=1.0)
    """Bound on the loss of negative advantages, as a multiple of the advantage."""
    value_clip: PositiveFloat | None = None
    """Clip range of the value loss, in reward units or in sigmas when normalised."""
    value_normalise: bool = False
    """Divide the value loss by the variance of the value error: invariant to reward scale."""
    value_coefficient: NonNegativeFloat = 0.5
    """Weight of the value loss."""
    entropy_coefficient: NonNegativeFloat = 0.0
    """Weight of the entropy bonus."""
    gamma: Share = 1.0
    """Discount per token. Below 1 the KL term no longer matches its optimum."""
    lam: Share = 0.95
    """lambda of GAE for the policy's advantages."""
    value_lam: Share = 1.0
    """lambda of GAE for the critic's targets; 1 is the Monte-Carlo return."""
    whiten_advantages: bool = True
    """Scale advantages to mean 0 and variance 1 over the round."""
    target_kl: PositiveFloat | None = None
    """Stop a round's updates when the policy has moved 1.5 times this far per token."""
    frozen_layers: NonNegativeInt = 0
    """Lowest blocks of the policy that stay as they are, embeddings included, and with them a head
    that is tied to these. What they make of a round's tokens is computed once, for policy,
    reference and shared critic, and for all epochs."""
    critic_warmup: NonNegativeInt = 0
    """Rounds that train the critic alone."""
    max_failed_share: Share = 0.25
    """Stop when a larger share of a round could not be scored."""
    policy: OptimizerConfig = OptimizerConfig(learning_rate=3e-6)
    critic: OptimizerConfig = OptimizerConfig(learning_rate=1e-5)
    precision: PrecisionConfig = PrecisionConfig()
    alarms: AlarmsConfig = AlarmsConfig()

    @property
    def rows_per_step(self) -> int:
        """Completions in each round."""
        return self.prompts_per_step * self.sampling.samples_per_prompt

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.sampling.top_p != 1.0 or self.sampling.top_k != 0:
            raise ValueError(
                f"sampling.top_p is {self.sampling.top_p} and sampling.top_k is "
                f"{self.sampling.top_k}, training rollouts need 1.0 and 0: a truncated sampler is "
                "not the distribution whose log-probabilities PPO differentiates"
            )
        if self.batch.minibatch > self.rows_per_step:
            raise ValueError(
                f"batch.minibatch is {self.batch.minibatch} but a round has only "
                f"{self.rows_per_step} completions (prompts_per_step {self.prompts_per_step} x "
                f"samples_per_prompt {self.sampling.samples_per_prompt}): set it to "
                f"{self.rows_per_step} or less"
            )
        if self.kl.target is not None and self.rows_per_step > 5 * self.kl.horizon:
            raise ValueError(
                f"kl.horizon is {self.kl.horizon}, below a fifth of a round's "
                f"{self.rows_per_step} completions: one update could make beta negative; set it "
                f"to {self.rows_per_step // 5 + 1} or more"
            )
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
