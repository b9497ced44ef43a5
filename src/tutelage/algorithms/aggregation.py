"""How a batch of per-token losses becomes one number: the choice of denominator.

A loss sums `loss_t / D` over its tokens. Which average that is, over tokens or over
sequences, is decided by D alone, and D is known before the first backward pass:

    loss_denominator(mask of the whole step) ──rows of the micro-batch──> ppo_policy_loss
"""

from typing import Literal, assert_never

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tutelage.algorithms.masked import AllSum, identity

__all__ = ["Aggregation", "loss_denominator"]

Aggregation = Literal["token_mean", "sequence_mean", "sequence_sum", "fixed_length"]


def loss_denominator(
    mask: Bool[Tensor, "batch time"],
    kind: Aggregation = "token_mean",
    *,
    max_length: int | None = None,
    all_sum: AllSum = identity,
) -> Float[Tensor, "batch 1"]:
    """What each row's tokens are divided by, so that sums over rows are the chosen mean.

        token_mean      D_i = Σ_j |y_j|      every token counts the same (default)
        sequence_mean   D_i = B · |y_i|      every sequence counts the same
        sequence_sum    D_i = B              mean over sequences of the sum over tokens
        fixed_length    D_i = B · L_max      the same, per token of the longest allowed

    Source: token_mean is DAPO (Yu et al. 2025, arXiv:2503.14476, eq. 12); sequence_mean is
    GRPO (Shao et al. 2024, arXiv:2402.03300, eq. 3); fixed_length is Dr. GRPO (Liu et al.
    2025, arXiv:2503.20783). Gradients differ in scale, so a learning rate does not carry
    over from one to another.

    Args:
        mask: response tokens of the **whole** optimiser step on this rank; a micro-batch
            takes its rows of the result.
        max_length: L_max, for `fixed_length` only.
        all_sum: adds over ranks. B counts the rows that have at least one token.

    Raises:
        ValueError: `fixed_length` without a `max_length`, or the reverse.
    """
    if (kind == "fixed_length") != (max_length is not None):
        raise ValueError(
            f"max_length belongs to fixed_length: found kind {kind!r}, max_length {max_length!r}"
        )
    lengths = mask.bool().sum(-1, keepdim=True).to(torch.get_default_dtype())
    rows = all_sum((lengths > 0).sum().to(lengths.dtype))
    match kind:
        case "token_mean":
            return all_sum(lengths.sum()).expand_as(lengths)
        case "sequence_mean":
            return rows * lengths
        case "sequence_sum":
            return rows.expand_as(lengths)
        case "fixed_length":
            return (rows * (max_length or 0)).expand_as(lengths)
        case _:
            assert_never(kind)
