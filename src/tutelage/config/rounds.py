"""What all learners by reinforcement share: rounds of sampling, scoring and updates.

RoundsConfig ──────────────> OnlineDPOConfig        pairs of what was just sampled
  └─ PolicyGradientConfig ─> ReinforceConfig        one step on what was just sampled
       └─ ClippedConfig ───> GRPOConfig, RLOOConfig, ReinforcePPConfig
                             └ PPOConfig            and a critic
"""

from typing import ClassVar, Literal, Self

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
from tutelage.config.curriculum import CurriculumConfig
from tutelage.config.training import BatchConfig, OptimizerConfig, PrecisionConfig, Share

__all__ = [
    "ClippedConfig",
    "KLConfig",
    "PenaltyConfig",
    "PolicyGradientConfig",
    "RoundsConfig",
    "SamplingConfig",
    "TruncationConfig",
]


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


class PenaltyConfig(Section):
    """What holds the policy near the reference."""

    coefficient: NonNegativeFloat = 0.05
    """beta, the weight of the divergence from the reference."""


class KLConfig(PenaltyConfig):
    """What holds the policy near the reference, through the reward: beta times the KL per token."""

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

    mode: Literal["replace", "penalise", "soft", "drop", "bootstrap", "keep"] = "penalise"
    """replace: the score becomes `value`. penalise: `value` is added to the score. soft: a share of
    `value` that rises over the last `buffer` tokens before the limit is added, all of it where the
    limit cut (DAPO). drop: the row is masked out. bootstrap: the critic's value of the last state
    is added as if the episode went on. keep: nothing."""
    value: float | Literal["auto"] = -1.0
    """The replacement score (replace) or the amount added (penalise, soft). auto takes one sigma
    less than the reward model's lowest score of the reference's answers."""
    buffer: PositiveInt | None = None
    """Tokens before the limit over which `soft` punishes more and more; only with `soft`."""

    @model_validator(mode="after")
    def _buffer_belongs_to_soft(self) -> Self:
        if (self.mode == "soft") != (self.buffer is not None):
            raise ValueError(
                f"mode is {self.mode!r} and buffer is {self.buffer}: a buffer belongs to mode "
                "'soft', which needs one; set both or neither"
            )
        if self.mode == "soft" and self.value != "auto" and self.value > 0.0:
            raise ValueError(
                f"value is {self.value:g}, at most 0 is needed with mode 'soft': it would reward "
                "length"
            )
        return self


class RoundsConfig(Section):
    """Rounds of sampling, scoring and updates."""

    section: ClassVar[str]
    """Key of the train stage that holds these settings."""
    has_critic: ClassVar[bool] = False
    """Whether the learner trains a critic."""
    compares: ClassVar[str] = ""
    """Why each prompt needs several completions; empty where one is enough."""
    pull: ClassVar[str]
    """Key of what holds the policy near the reference."""
    completions_per_row: ClassVar[int] = 1
    """Completions that a row of an update holds side by side."""

    steps: PositiveInt = 100
    """Rollout-and-update rounds."""
    prompts_per_step: PositiveInt = 64
    """Prompts sampled in each round."""
    batch: BatchConfig = BatchConfig()
    sampling: SamplingConfig = SamplingConfig()
    final_temperature: PositiveFloat | None = None
    """Temperature of the last round. It goes from `sampling.temperature` to this in a straight
    line, a round at a time; null keeps it constant. Probes stay at `sampling.temperature`."""
    curriculum: CurriculumConfig | None = None
    """Draw prompts by how much there is to learn from them; null draws each as often as any."""
    truncation: TruncationConfig = TruncationConfig()
    frozen_layers: NonNegativeInt = 0
    """Lowest blocks of the policy that stay as they are, embeddings included, and with them a head
    that is tied to these. What they make of a round's tokens is computed once, for policy,
    reference and shared critic, and for all epochs."""
    max_failed_share: Share = 0.25
    """Stop when a larger share of a round could not be scored."""
    policy: OptimizerConfig = OptimizerConfig(learning_rate=3e-6)
    precision: PrecisionConfig = PrecisionConfig()
    alarms: AlarmsConfig = AlarmsConfig()

    @property
    def rows_per_step(self) -> int:
        """Completions in each round."""
        return self.prompts_per_step * self.sampling.samples_per_prompt

    def temperature_at(self, index: int) -> float:
        """Sampling temperature of a round; the first has index 0, the last `steps` - 1."""
        start, end = self.sampling.temperature, self.final_temperature
        if end is None:
            return start
        done = index / (self.steps - 1)
        return (1 - done) * start + done * end

    @property
    def updates_per_step(self) -> int:
        """Rows, at most, that the updates of a round go through."""
        return self.rows_per_step

    @property
    def beta(self) -> float:
        """What a nat of divergence from the reference costs, before any adaptation."""
        raise NotImplementedError

    @property
    def kl_target(self) -> float | None:
        """KL per sequence that the learner steers to."""
        return None

    @property
    def beta_can_be_raised(self) -> bool:
        """Whether a fixed coefficient in the reward pulls the policy to the reference."""
        return False

    @property
    def passes(self) -> int:
        """How often a round's experience is gone through."""
        return 1

    @property
    def divergence_stop(self) -> float | None:
        """KL per token to the policy that sampled at which a round's updates end."""
        return None

    @model_validator(mode="after")
    def _samples_what_is_learned(self) -> Self:
        if self.sampling.top_p != 1.0 or self.sampling.top_k != 0:
            raise ValueError(
                f"sampling.top_p is {self.sampling.top_p} and sampling.top_k is "
                f"{self.sampling.top_k}, training rollouts need 1.0 and 0: a truncated sampler is "
                "not the distribution whose log-probabilities are differentiated"
            )
        if self.compares and self.sampling.samples_per_prompt < 2:
            raise ValueError(
                "sampling.samples_per_prompt is 1, at least 2 are needed, because "
                f"{self.compares}: one alone would have the advantage 0"
            )
        if self.truncation.mode == "bootstrap" and not self.has_critic:
            raise ValueError(
                f"truncation.mode is 'bootstrap', which needs a critic, and {self.section} has "
                "none: set it to 'penalise', 'replace', 'soft', 'drop' or 'keep'"
            )
        buffer = self.truncation.buffer
        if buffer is not None and buffer > self.sampling.max_tokens:
            raise ValueError(
                f"truncation.buffer is {buffer} and sampling.max_tokens is "
                f"{self.sampling.max_tokens}: the buffer lies before the limit, set it to "
                f"{self.sampling.max_tokens} or less"
            )
        return self

    @model_validator(mode="after")
    def _explores_as_asked(self) -> Self:
        if self.final_temperature is not None and self.steps < 2:
            raise ValueError(
                f"final_temperature is {self.final_temperature:g} and steps is {self.steps}: a "
                "single round has one temperature, set sampling.temperature"
            )
        if self.curriculum is not None and self.sampling.samples_per_prompt < 2:
            raise ValueError(
                "sampling.samples_per_prompt is 1, a curriculum needs at least 2: what there is to "
                "learn from a prompt shows in how much its completions differ"
            )
        return self

    @model_validator(mode="after")
    def _round_is_large_enough(self) -> Self:
        if self.batch.minibatch > self.updates_per_step:
            raise ValueError(
                f"batch.minibatch is {self.batch.minibatch} but a round has only "
                f"{self.updates_per_step} {self._rows_in_words()}: set it to "
                f"{self.updates_per_step} or less"
            )
        return self

    def _rows_in_words(self) -> str:
        """What the rows of an update are, and why there are so many."""
        return (
            f"completions (prompts_per_step {self.prompts_per_step} x samples_per_prompt "
            f"{self.sampling.samples_per_prompt})"
        )


class PolicyGradientConfig(RoundsConfig):
    """Rounds whose updates follow the gradient of a reward."""

    pull: ClassVar[str] = "kl.coefficient"

    kl: PenaltyConfig = KLConfig()
    entropy_coefficient: NonNegativeFloat = 0.0
    """Weight of the entropy bonus."""

    @property
    def beta(self) -> float:
        """`kl.coefficient`."""
        return self.kl.coefficient

    @property
    def kl_target(self) -> float | None:
        """`kl.target`, of a KL in the reward."""
        return self.kl.target if isinstance(self.kl, KLConfig) else None

    @property
    def beta_can_be_raised(self) -> bool:
        """With a KL in the reward that no target steers, and that is not 0."""
        fixed = isinstance(self.kl, KLConfig) and self.kl.target is None
        return fixed and self.kl.coefficient > 0.0

    @model_validator(mode="after")
    def _horizon_is_long_enough(self) -> Self:
        if (
            isinstance(self.kl, KLConfig)
            and self.kl.target is not None
            and self.rows_per_step > 5 * self.kl.horizon
        ):
            raise ValueError(
                f"kl.horizon is {self.kl.horizon}, below a fifth of a round's "
                f"{self.rows_per_step} completions: one update could make beta negative; set it "
                f"to {self.rows_per_step // 5 + 1} or more"
            )
        return self


class ClippedConfig(PolicyGradientConfig):
    """Several updates on the same round, held back by a clip."""

    epochs: PositiveInt = 2
    """Passes over each round's experience."""
    clip: PositiveFloat = 0.2
    """epsilon of the clipped surrogate."""
    clip_high: PositiveFloat | None = None
    """Upper epsilon where it differs from the lower (clip-higher)."""
    dual_clip: float | None = Field(default=None, gt=1.0)
    """Bound on the loss of negative advantages, as a multiple of the advantage."""
    target_kl: PositiveFloat | None = None
    """Stop a round's updates when the policy has moved 1.5 times this far per token."""

    @property
    def passes(self) -> int:
        """Epochs."""
        return self.epochs

    @property
    def divergence_stop(self) -> float | None:
        """`target_kl`."""
        return self.target_kl
