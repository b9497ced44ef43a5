"""Losses of a policy, clipped per token (PPO), per sequence (GSPO), or not at all (REINFORCE).

logprobs ─┬─> ratio ──> clip ──> max ──> Σ / denominator
old ──────┘     advantages ────────┘
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tutelage.algorithms.kl import kl_estimate
from tutelage.algorithms.loss_output import LossOutput
from tutelage.algorithms.masked import masked_mean, require_same_shape, zero_outside

__all__ = ["gspo_policy_loss", "ppo_policy_loss", "reinforce_loss", "sequence_ratio"]

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
    _check(logprobs, old_logprobs, advantages, mask, clip, clip_high, dual_clip)
    new = zero_outside(logprobs, mask)
    old = zero_outside(old_logprobs, mask).detach()
    advantages = zero_outside(advantages, mask).detach()
    ratio = _log_ratio(new, old).exp()
    mean = partial(masked_mean, mask=mask, denominator=denominator)
    clipped = _clipped(ratio, advantages, mean, clip, clip_high, dual_clip)
    with torch.no_grad():
        metrics = clipped.metrics | _ratio_metrics(new, old, ratio, mask, mean)
    return LossOutput(clipped.loss, metrics)


def gspo_policy_loss(
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
    """The clipped surrogate whose ratio is that of the whole completion, per token.

        s(y) = (π(y | x) / π_old(y | x))^(1 / |y|)
        L = Σ_t max(-A_t s, -A_t clip(s, 1 - ε, 1 + ε)) / D

    Source: Zheng et al. 2025 (arXiv:2507.18071), eq. 5 and 7. A completion is clipped as a whole
    or not at all. With the denominator `sequence_mean` it is the paper's mean over completions;
    with another one, long and short ones weigh differently. s is a geometric mean and stays far
    nearer to 1 than a token's ratio: the paper's ε is 3e-4 downwards and 4e-4 upwards.

    Args:
        advantages: the same for all tokens of a row.
        clip: ε.
        clip_high: ε upwards, if different.
        dual_clip: c, above 1; see `ppo_policy_loss`.
        denominator: see `masked_mean`.

    Returns:
        As `ppo_policy_loss`. Clip fractions speak of s; the ratio's mean and extremes, and the
        KL, of tokens, because a mean over a completion hides a token that is wrong.

    Raises:
        ValueError: shapes differ, or a clip is out of range.
    """
    _check(logprobs, old_logprobs, advantages, mask, clip, clip_high, dual_clip)
    new = zero_outside(logprobs, mask)
    old = zero_outside(old_logprobs, mask).detach()
    advantages = zero_outside(advantages, mask).detach()
    mean = partial(masked_mean, mask=mask, denominator=denominator)
    whole = sequence_ratio(new, old, mask).expand_as(new)
    clipped = _clipped(whole, advantages, mean, clip, clip_high, dual_clip)
    with torch.no_grad():
        ratio = _log_ratio(new, old).exp()
        metrics = clipped.metrics | _ratio_metrics(new, old, ratio, mask, mean)
    return LossOutput(clipped.loss, metrics)


def sequence_ratio(
    logprobs: Float[Tensor, "batch time"],
    old_logprobs: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
) -> Float[Tensor, "batch 1"]:
    """The ratio of a completion's probabilities, per token: the geometric mean of its ratios.

        s(y) = exp(1 / |y| Σ_t (log π(y_t) - log π_old(y_t)))

    Source: Zheng et al. 2025 (arXiv:2507.18071), eq. 7. The exponent is clamped to ±20.

    Returns:
        One ratio per row, with gradient to `logprobs`; 1 for a row without tokens.
    """
    require_same_shape(logprobs=logprobs, old_logprobs=old_logprobs, mask=mask)
    change = zero_outside(logprobs, mask) - zero_outside(old_logprobs, mask).detach()
    lengths = mask.bool().sum(-1, keepdim=True).clamp(min=1)
    exponent = change.sum(-1, keepdim=True) / lengths
    return exponent.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()


def reinforce_loss(
    logprobs: Float[Tensor, "batch time"],
    old_logprobs: Float[Tensor, "batch time"],
    advantages: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    denominator: int | float | Tensor | None = None,
) -> LossOutput:
    """The score-function estimate of the policy gradient, negated.

        L = -Σ_t A_t log π(a_t) / D

    Source: Williams 1992, "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning", eq. 5. There is no ratio: it is right for samples of the present policy
    alone, and for one step on them. Its gradient is that of `ppo_policy_loss` where π = π_old.

    Args:
        old_logprobs: of the policy that sampled, for the metrics only.
        denominator: see `masked_mean`.

    Returns:
        The loss, with gradient to `logprobs` only, and the ratio's `policy/` metrics.

    Raises:
        ValueError: shapes differ.
    """
    require_same_shape(
        logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask
    )
    new = zero_outside(logprobs, mask)
    old = zero_outside(old_logprobs, mask).detach()
    mean = partial(masked_mean, mask=mask, denominator=denominator)
    loss = mean(-zero_outside(advantages, mask).detach() * new)
    with torch.no_grad():
        ratio = _log_ratio(new, old).exp()
        metrics = {"policy/loss": loss.detach(), **_ratio_metrics(new, old, ratio, mask, mean)}
    return LossOutput(loss, metrics)


def _check(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float,
    clip_high: float | None,
    dual_clip: float | None,
) -> None:
    require_same_shape(
        logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask
    )
    high = clip if clip_high is None else clip_high
    if not (0 < clip < 1 and high > 0):
        raise ValueError(f"0 < clip < 1 and 0 < clip_high are needed, found {clip!r} and {high!r}")
    if dual_clip is not None and not dual_clip > 1:
        raise ValueError(f"dual_clip must be above 1, found {dual_clip!r}")


def _log_ratio(new: Tensor, old: Tensor) -> Tensor:
    return (new - old).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)


def _clipped(
    ratio: Tensor,
    advantages: Tensor,
    mean: Callable[[Tensor], Tensor],
    clip: float,
    clip_high: float | None,
    dual_clip: float | None,
) -> LossOutput:
    """The worse of the surrogates with and without the clip, and how often the clip decides."""
    high = clip if clip_high is None else clip_high
    surrogate = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + high)
    per_token = torch.maximum(surrogate, clipped)
    metrics = {}
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
        }
    return LossOutput(loss, metrics)


def _ratio_metrics(
    new: Tensor, old: Tensor, ratio: Tensor, mask: Tensor, mean: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """How far the policy is from the one that sampled, token by token."""
    log_ratio = _log_ratio(new, old)
    return {
        "policy/ratio_mean": mean(ratio),
        "policy/ratio_max": torch.where(mask.bool(), ratio, -torch.inf).amax(),
        "policy/ratio_min": torch.where(mask.bool(), ratio, torch.inf).amin(),
        "policy/log_ratio_max": (new - old).abs().amax(),
        "policy/approx_kl_k1": mean(kl_estimate(old, new, "k1")),
        "policy/approx_kl_k3": mean(log_ratio.expm1() - log_ratio),
    }
