"""Settings of GRPO (Shao et al. 2024) and of what was made of it: Dr. GRPO, DAPO, GSPO."""

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator

from tutelage.config.rounds import ClippedConfig, PenaltyConfig, SamplingConfig

__all__ = ["GRPOConfig", "LossKLConfig"]


class LossKLConfig(PenaltyConfig):
    """What holds the policy near the reference, through the loss."""

    coefficient: NonNegativeFloat = 0.04
    """beta of the divergence in the loss. 0, as in DAPO, does without the reference's pull."""
    estimator: str = "k3"
    """k3: the paper's, with the gradient of KL(reference || policy). k2: that of KL(policy ||
    reference), from the sampled tokens. full: the same without sampling noise, summed over the
    vocabulary, for more memory."""

    @field_validator("estimator")
    @classmethod
    def _has_a_gradient(cls, value: str) -> str:
        if value == "k1":
            raise ValueError(
                "found 'k1', whose expected gradient in a loss is 0, so that nothing would hold "
                "the policy: set it to 'k3', 'k2' or 'full'"
            )
        if value not in ("k2", "k3", "full"):
            raise ValueError(f"found {value!r}, expected 'k3', 'k2' or 'full'")
        return value


class GRPOConfig(ClippedConfig):
    """Group relative policy optimisation: no critic, completions of one prompt are compared.

    Dr. GRPO: `scale_by_std: false, aggregation: fixed_length`. DAPO: `clip_high: 0.28, aggregation:
    token_mean, extra_batches: 3`, `truncation: {mode: soft, buffer: ...}` or `drop`, `kl:
    {coefficient: 0}`. GSPO: `ratio: sequence, clip: 3e-4, clip_high: 4e-4`.
    """

    section: ClassVar[str] = "grpo"
    compares: ClassVar[str] = "a completion's advantage is its score minus the mean of its group"

    prompts_per_step: PositiveInt = 16
    """Prompts sampled in each round."""
    sampling: SamplingConfig = SamplingConfig(samples_per_prompt=8)
    epochs: PositiveInt = 1
    """Passes over each round's experience."""
    kl: LossKLConfig = LossKLConfig()
    scale_by_std: bool = True
    """Divide a group's advantages by the standard deviation of its scores. Dr. GRPO does not: the
    division changes what is optimised."""
    aggregation: Literal["sequence_mean", "token_mean", "fixed_length"] = "sequence_mean"
    """What the loss is a mean over. sequence_mean: completions, each the mean of its tokens.
    token_mean: all tokens of the minibatch (DAPO). fixed_length: completions, each the sum of its
    tokens over sampling.max_tokens (Dr. GRPO)."""
    ratio: Literal["token", "sequence"] = "token"
    """What is clipped: each token's ratio, or that of the completion (GSPO)."""
    extra_batches: NonNegativeInt = 0
    """Further batches of prompts, at most, that a round may draw until `prompts_per_step` of its
    groups hold different scores; the others teach nothing and are thrown away (DAPO's dynamic
    sampling). 0 takes every group as it comes."""

    @model_validator(mode="after")
    def _one_choice_of_prompts(self) -> Self:
        if self.extra_batches and self.curriculum is not None:
            raise ValueError(
                f"extra_batches is {self.extra_batches} and there is a curriculum, but both choose "
                "the prompts that there is something to learn from: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ratio == "sequence" and self.aggregation == "token_mean":
            raise ValueError(
                "ratio is 'sequence' and aggregation is 'token_mean': one ratio stands for all "
                "tokens of a completion, which would count by its length; set aggregation to "
                "'sequence_mean'"
            )
        return self
