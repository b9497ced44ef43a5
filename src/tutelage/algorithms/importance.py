"""Correcting for a sampler that is not quite the policy being trained.

Another engine, another precision or slightly older weights draw from μ where the update assumes
π_old. Three log-probabilities are then kept apart: μ (sampler), π_old (training engine, before
the update) and π (now).

    min(π_old / μ, C) · A ──> ppo_policy_loss, whose ratio is π / π_old
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tutelage.algorithms.masked import masked_mean, require_same_shape, zero_outside

__all__ = ["importance_metrics", "importance_weight"]

_MAX_LOG_RATIO = 20.0


def _log_weight(old_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor) -> Tensor:
    require_same_shape(old_logprobs=old_logprobs, sampler_logprobs=sampler_logprobs, mask=mask)
    sampler = zero_outside(sampler_logprobs.detach(), mask)
    if not sampler.isfinite().all():
        raise ValueError(
            "a written token has no finite sampler log-probability: the sampler must report one "
            "for every token it drew (0.0 would mean probability 1)"
        )
    return zero_outside(old_logprobs.detach(), mask) - sampler


def importance_weight(
    old_logprobs: Float[Tensor, "batch time"],
    sampler_logprobs: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    cap: float,
) -> Float[Tensor, "batch time"]:
    """Truncated importance weights of the sampled tokens.

        w_t = min(π_old(a_t) / μ(a_t), C)

    Source: Ionides 2008, "Truncated importance sampling"; for rollout engines, Yao et al. 2025,
    "Your efficient RL framework secretly brings you off-policy RL training". With C = ∞
    expectations under π_old are unbiased; C = 2 to 3 trades that for bounded variance.

    Returns:
        Weights without gradient, 0 at masked positions, exactly 1 where both agree.

    Raises:
        ValueError: shapes differ, or a written token lacks its sampler log-probability.
    """
    log_weight = _log_weight(old_logprobs, sampler_logprobs, mask)
    weight = log_weight.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp().clamp(max=cap)
    return zero_outside(weight, mask)


def importance_metrics(
    old_logprobs: Float[Tensor, "batch time"],
    sampler_logprobs: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    cap: float,
) -> dict[str, Tensor]:
    """How far the sampler is from the policy, over one rollout.

        ESS = (Σ w_t)² / (n Σ w_t²)

    Source: Kong 1992 for the effective sample size, here as a share of n, before truncation.

    Returns:
        `sampler/gap_mean`, `sampler/gap_max` (|log π_old - log μ|), `sampler/ess` in (0, 1], and
        `sampler/truncated_fraction` (weights above the cap).
    """
    log_weight = _log_weight(old_logprobs, sampler_logprobs, mask)
    weight = zero_outside(log_weight.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp(), mask)
    count = mask.bool().sum().clamp(min=1)
    squares = weight.square().sum()
    return {
        "sampler/gap_mean": masked_mean(log_weight.abs(), mask),
        "sampler/gap_max": log_weight.abs().amax(),
        "sampler/ess": weight.sum().square() / (count * torch.where(squares > 0, squares, 1)),
        "sampler/truncated_fraction": masked_mean((weight > cap).to(weight.dtype), mask),
    }
