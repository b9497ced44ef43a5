"""Settings shared by everything that takes gradient steps."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from tutelage.config.base import Section

__all__ = [
    "PRETRAIN_TOKENS",
    "READ_TOKENS",
    "BatchConfig",
    "OptimizerConfig",
    "PrecisionConfig",
    "Share",
]

READ_TOKENS = 8192
"""Tokens that go through a model at once, padding included, where nothing is trained."""

PRETRAIN_TOKENS = 1024
"""Tokens of a micro-batch of pre-training, padding included: several a step, for several cores."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class OptimizerConfig(Section):
    """An optimiser with a warm-up and a decay to a floor."""

    algorithm: Literal["adamw", "adamw8bit", "adafactor"] = "adamw"
    """adamw: 8 bytes of state for each weight. adamw8bit: 2 bytes; needs the extra `optimizers`.
    adafactor: almost none, no first moment, and a learning rate that is relative to the size of
    each weight: 1e-3 moves a matrix by a thousandth of its root mean square."""
    learning_rate: PositiveFloat = 3e-6
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after the warm-up."""
    floor: Share = 0.0
    """Learning rate at the end, as a share of the peak."""
    warmup: Share = 0.0
    """Share of the optimiser steps spent rising linearly to the peak."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay; never applied to biases and norms."""
    beta1: Share = 0.9
    """Decay of AdamW's first moment; Adafactor has none."""
    beta2: Share = 0.999
    """Decay of AdamW's second moment; Adafactor's is 1 - step^-0.8."""
    epsilon: PositiveFloat = 1e-5
    """AdamW's epsilon. 1e-5 as in the PPO literature: 1e-8 makes early steps aggressive. Adafactor
    has its own."""
    max_gradient_norm: PositiveFloat = 1.0
    """Global gradient norm above which gradients are scaled down, per model."""


class PrecisionConfig(Section):
    """Number formats."""

    weights: str = "float32"
    """Format of the trainable weights. Only float32: see the refusal of bfloat16."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Format of matrix products, by autocast over float32 weights."""

    @field_validator("weights")
    @classmethod
    def _master_weights(cls, value: str) -> str:
        if value != "float32":
            raise ValueError(
                f"found {value!r}, only 'float32' is allowed: bfloat16 weights under AdamW round "
                "most updates away (at learning rate 3e-6 1.6 % of the weights move at all); "
                "set precision.compute to bfloat16 instead, which keeps float32 master weights"
            )
        return value


class BatchConfig(Section):
    """How a batch is cut up for the optimiser."""

    minibatch: PositiveInt = 64
    """Rows per optimiser step."""
    microbatch_tokens: PositiveInt = 16384
    """Tokens, padding included, in one forward and backward pass."""
    head_tokens: PositiveInt = 2048
    """Response tokens whose logits over the vocabulary exist at a time. Smaller needs less memory
    and reads the head once more in the backward pass. Reward models have no such head."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block and compute the rest again in the backward pass: the same
    gradients in less memory, for about a third more computation."""
