"""The critic's loss, plain or in units of its own error, and how well the critic explains.

Plain clipping depends on the scale of the reward: ε = 0.2 is a tight band for returns near
10 and no band at all for returns near 0.1. Either normalise rewards, use the normalised
loss, or turn clipping off.
"""

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tutelage.algorithms.loss_output import LossOutput
from tutelage.algorithms.masked import (
    AllSum,
    identity,
    masked_mean,
    masked_variance,
    require_same_shape,
    zero_outside,
)

__all__ = ["explained_variance", "ppo_value_loss", "value_sigma2"]

_SIGMA2_FLOOR = 1e-8


def value_sigma2(
    old_values: Float[Tensor, "batch time"],
    returns: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    all_sum: AllSum = identity,
) -> Float[Tensor, ""]:
    """Mean squared error of the critic that made the rollout: the unit of the normalised loss.

        σ² = max(E[(V_old - R)²], 10⁻⁸)

    Source: by definition; in this unit the loss is invariant to the scale of the reward. Compute
    it once for the whole optimiser step, over all ranks, and hand it to every micro-batch.
    """
    require_same_shape(old_values=old_values, returns=returns, mask=mask)
    with torch.no_grad():
        error = zero_outside(old_values, mask) - zero_outside(returns, mask)
        count = all_sum(mask.bool().sum().to(error.dtype)).clamp(min=1)
        return (all_sum(error.square().sum()) / count).clamp(min=_SIGMA2_FLOOR)


def ppo_value_loss(
    values: Float[Tensor, "batch time"],
    old_values: Float[Tensor, "batch time"],
    returns: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    clip: float | None,
    normalize: bool = False,
    sigma2: Float[Tensor, ""] | None = None,
    denominator: int | float | Tensor | None = None,
) -> LossOutput:
    """Half the squared error to the returns, pessimistic about steps away from the old values.

        L = ½ Σ_t max((V_t - R_t)², (clip(V_t, V_old ± ε σ) - R_t)²) / (σ² D)

    Source: Ziegler et al. 2019 (arXiv:1909.08593), code `train_policy.py`, where σ = 1. Departure:
    with `normalize`, σ² is `value_sigma2`, and neither the loss nor the band depends on the
    scale of the reward.

    Args:
        clip: ε, in units of σ; None turns clipping off.
        sigma2: σ² of the whole optimiser step. Without it σ² is taken from this call's
            rows, and micro-batches no longer add up to the batch.
        denominator: see `masked_mean`.

    Returns:
        The loss, with gradient to `values` only, and `value/` metrics. `value/error` is the
        mean of (V - R)², unscaled; `value/clip_fraction` counts where the clipped branch decides.

    Raises:
        ValueError: shapes differ, clip is not positive, or sigma2 comes without `normalize`.
    """
    require_same_shape(values=values, old_values=old_values, returns=returns, mask=mask)
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive, or None for no clipping, found {clip!r}")
    if sigma2 is not None and not normalize:
        raise ValueError("sigma2 is given but normalize is False: set normalize=True to use it")
    values = zero_outside(values, mask)
    old = zero_outside(old_values, mask).detach()
    returns = zero_outside(returns, mask).detach()
    if normalize:
        scale = value_sigma2(old, returns, mask) if sigma2 is None else sigma2
        scale = scale.detach().clamp(min=_SIGMA2_FLOOR)
    else:
        scale = torch.ones((), dtype=values.dtype, device=values.device)

    error = (values - returns).square()
    per_token = error
    if clip is not None:
        band = clip * scale.sqrt()
        clipped = (torch.clamp(values, old - band, old + band) - returns).square()
        per_token = torch.maximum(error, clipped)
    mean = partial(masked_mean, mask=mask, denominator=denominator)
    loss = 0.5 * mean(per_token / scale)

    with torch.no_grad():
        metrics = {
            "value/loss": loss.detach(),
            "value/error": mean(error),
            "value/mean": mean(values),
            "value/clip_fraction": mean((per_token > error).to(error.dtype)),
        }
    return LossOutput(loss, metrics)


def explained_variance(
    values: Float[Tensor, "batch time"],
    returns: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    all_sum: AllSum = identity,
) -> Float[Tensor, ""]:
    """Share of the returns' variance that the critic accounts for.

        EV = 1 - Var(R - V) / Var(R)

    Source: by definition, the R² of the critic; `explained_variance` of OpenAI baselines 2017. 1 is
    a perfect critic, 0 one that predicts a constant; a negative one is worse than a constant.

    Returns:
        A scalar without gradient; 0 where the returns do not vary.
    """
    require_same_shape(values=values, returns=returns, mask=mask)
    with torch.no_grad():
        residual = zero_outside(returns, mask) - zero_outside(values, mask)
        total = masked_variance(returns, mask, all_sum=all_sum)
        unexplained = masked_variance(residual, mask, all_sum=all_sum)
        varies = total > 0
        return torch.where(varies, 1 - unexplained / torch.where(varies, total, 1), 0)
