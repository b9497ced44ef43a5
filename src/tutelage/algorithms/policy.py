"""The clipped policy loss of PPO.

logprobs ─┬─> ratio ──> clip ──> max ──> Σ / denominator
old ──────┘     advantages ────────┘
"""

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tutelage.algorithms.kl import kl_estimate
from tutelage.algorithms.loss_output import LossOutput
from tutelage.algorithms.masked import masked_mean, require_same_shape, zero_outside

__all__ = ["ppo_policy_loss"]

_MAX_LOG_RATIO = 20.0


def ppo_policy_loss(
    logprobs: Float[Tensor, "batch time"],
    old_logprobs: Float[Tensor, "batch time"],
    advantages: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    clip: float,
    clip_high: float | None = None,
    dual_clip: float | None = None,
    denominator: int | float | Tensor | None = None,
) -> LossOutput:
    """The clipped surrogate objective, negated.

        ρ_t = π(a_t) / π_old(a_t)
        L = Σ_t max(-A_t ρ_t, -A_t clip(ρ_t, 1 - ε, 1 + ε)) / D

    Source: Schulman et al. 2017 (arXiv:1707.06347), eq. 7. Departures: log ρ is clamped to ±20
    before the exponential, while the reported k1 is not; ε may be larger upwards (Yu et al.
    2025, arXiv:2503.14476, eq. 10); for A < 0 the loss may be capped at c |A| (dual clip, Ye et
    al. 2020, arXiv:1912.09729). To weight tokens by `importance_weight`, weight the
    advantages: all weights are positive, so it is the same loss.

    Args:
        clip: ε.
        clip_high: ε upwards, if different.
        dual_clip: c, above 1.
        denominator: see `masked_mean`; metrics are averaged as the loss is.

    Returns:
        The loss, with gradient to `logprobs` only, and `policy/` metrics: both clip
        fractions (`clip_active`: the clipped branch decides; `clip_range`: ρ left the
        band), mean and extremes of ρ, the largest |log ρ| before it is clamped, and
        KL(π_old ‖ π) as k1 and k3.

    Raises:
        ValueError: shapes differ, or a clip is out of range.
    """
    require_same_shape(
        logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask
    )
    high = clip if clip_high is None else clip_high
    if not (0 < clip < 1 and high > 0):
        raise ValueError(f"0 < clip < 1 and 0 < clip_high are needed, found {clip!r} and {high!r}")
    if dual_clip is not None and not dual_clip > 1:
        raise ValueError(f"dual_clip must be above 1, found {dual_clip!r}")
    new = zero_outside(logprobs, mask)
    old = zero_outside(old_logprobs, mask).detach()
    advantages = zero_outside(advantages, mask).detach()

    log_ratio = (new - old).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    surrogate = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + high)
    per_token = torch.maximum(surrogate, clipped)
    metrics = {}
    mean = partial(masked_mean, mask=mask, denominator=denominator)
    if dual_clip is not None:
        ceiling = -advantages * dual_clip
        capped = (advantages < 0) & (per_token > ceiling)
        per_token = torch.where(capped, ceiling, per_token)
        metrics["policy/dual_clip_fraction"] = mean(capped.to(ratio.dtype))
    loss = mean(per_token)

    with torch.no_grad():
        outside = (ratio < 1 - clip) | (ratio > 1 + high)
        metrics |= {
            "policy/loss": loss.detach(),
            "policy/clip_active_fraction": mean((clipped > surrogate).to(ratio.dtype)),
            "policy/clip_range_fraction": mean(outside.to(ratio.dtype)),
            "policy/ratio_mean": mean(ratio),
            "policy/ratio_max": torch.where(mask.bool(), ratio, -torch.inf).amax(),
            "policy/ratio_min": torch.where(mask.bool(), ratio, torch.inf).amin(),
            "policy/log_ratio_max": (new - old).abs().amax(),
            "policy/approx_kl_k1": mean(kl_estimate(old, new, "k1")),
            "policy/approx_kl_k3": mean(log_ratio.expm1() - log_ratio),
        }
    return LossOutput(loss, metrics)
