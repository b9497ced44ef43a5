"""Sums, means and whitening over the tokens that count.

A mask is boolean and selects: true where the policy wrote the token. What lies behind a
false is never read, not even multiplied by zero, because NaN times zero is NaN.

Statistics that must be global take the sum over ranks as a function, `all_sum`; with the
identity a single process computes the same thing.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = [
    "AllSum",
    "identity",
    "last_token",
    "masked_mean",
    "masked_variance",
    "masked_whiten",
    "require_same_shape",
    "zero_outside",
]

AllSum = Callable[[Tensor], Tensor]
"""Adds a tensor over all ranks: every rank calls it, every rank gets the total."""

_WHITEN_EPSILON = 1e-8


def identity(x: Tensor) -> Tensor:
    """The sum over the ranks of a single process: the identity."""
    return x


def require_same_shape(**tensors: Tensor) -> None:
    """Refuses tensors that would broadcast where they should correspond element by element.

    Source: by definition, position t of every per-token tensor speaks of the same token.

    Raises:
        ValueError: the shapes differ; the message lists them by name.
    """
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        found = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"tensors that correspond element by element differ in shape: {found}")


def zero_outside(x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Tensor:
    """Keeps `x` where the mask is true and puts 0 elsewhere.

        y_t = x_t if m_t else 0

    Source: by definition a selection, not the product m_t · x_t, which would let NaN through,
    forwards and backwards. Apply it to the inputs of a formula, not to its result: a NaN that
    enters the formula comes back in its gradient.
    """
    return torch.where(mask.bool(), x, 0)


def last_token(mask: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
    """Marks the last true position of each row; a row without any stays all false.

        y_t = m_t ∧ (Σ_{s≥t} m_s = 1)

    Source: where the score belongs (Ziegler et al. 2019, arXiv:1909.08593, section 2).
    """
    mask = mask.bool()
    remaining = mask.flip(-1).cumsum(-1).flip(-1)
    return mask & (remaining == 1)


def masked_mean(
    x: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"],
    denominator: int | float | Tensor | None = None,
) -> Float[Tensor, ""]:
    """The sum over the mask, divided by a denominator that may span more than this tensor.

        y = Σ_{t: m_t} x_t / D

    Source: by definition of the mean; with D the token count of the whole optimiser step,
    over micro-batches and ranks, the parts add up to the mean of one large batch.

    Args:
        denominator: a count, or one per row as `loss_denominator` gives it; the count of
            this mask when absent. Zero, the count of an empty step, is read as one.

    Returns:
        A scalar; 0, still connected to `x`, when the mask is empty.
    """
    if denominator is None:
        denominator = mask.bool().sum()
    # An empty step has nothing to divide: 0 / (0 + 1) instead of 0 / 0.
    return (zero_outside(x, mask) / (denominator + (denominator == 0))).sum()


def _centre(x: Tensor, mask: Tensor, all_sum: AllSum) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean, and deviations from the mean (0 outside the mask)."""
    count = all_sum(mask.bool().sum().to(x.dtype)).clamp(min=1)
    mean = all_sum(zero_outside(x, mask).sum()) / count
    centred = zero_outside(x - mean, mask)
    # What rounding left in the first mean; in fp32 it matters once |mean| >> std.
    drift = all_sum(centred.sum()) / count
    return count, mean + drift, zero_outside(centred - drift, mask)


def masked_variance(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, all_sum: AllSum = identity
) -> Float[Tensor, ""]:
    """Population variance over the mask, in two passes.

        y = Σ_{t: m_t} (x_t - x̄)² / n

    Source: Chan, Golub & LeVeque 1983, the corrected two-pass algorithm. The population
    form is used everywhere, so that ranks can be combined and one token gives 0.
    """
    count, _, centred = _centre(x, mask, all_sum)
    return all_sum(centred.square().sum()) / count


def masked_whiten(
    x: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"],
    *,
    all_sum: AllSum = identity,
    keep_mean: bool = False,
) -> Float[Tensor, "*shape"]:
    """Rescales to variance 1 over the mask, by default around mean 0.

        y_t = (x_t - x̄) / √(Var x + 10⁻⁸)   [+ x̄ if keep_mean]

    Source: `whiten` of Ziegler et al. 2019 (arXiv:1909.08593), code `core.py`. Departures: the
    mask; moments over all ranks; the flag says what is kept, because `shift_mean` means
    opposite things in different libraries.

    Returns:
        0 at masked positions, and for a single token or equal values.
    """
    count, mean, centred = _centre(x, mask, all_sum)
    variance = all_sum(centred.square().sum()) / count
    whitened = centred * torch.rsqrt(variance + _WHITEN_EPSILON)
    return zero_outside(whitened + mean, mask) if keep_mean else whitened
