"""How much better a completion was than the others of its prompt: credit without a critic.

scores of n completions of a prompt ──> minus the group's mean (GRPO), or that of the others (RLOO)

Rows of a tensor are prompts, its columns the completions of one prompt. A score that is NaN has
failed: it counts in no mean and its own advantage is 0. So are all of a group with fewer than two
usable scores, because nothing is left to compare with.
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["group_advantages", "leave_one_out"]

_EPSILON = 1e-6


def leave_one_out(scores: Float[Tensor, "prompts samples"]) -> Float[Tensor, "prompts samples"]:
    """Each score minus the mean of the other scores of its prompt.

        A_i = R_i - 1 / (n - 1) Σ_{j≠i} R_j = n / (n - 1) (R_i - R̄)

    Source: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!"; as RLOO for
    language models, Ahmadian et al. 2024 (arXiv:2402.14740), eq. 6. The baseline does not depend
    on the sample that it is for, so the gradient is unbiased.

    Args:
        scores: of the n completions of each prompt; NaN where one has failed.

    Returns:
        Advantages without gradient; n counts the usable scores of the group.
    """
    centred, count = _centred(scores)
    return centred * count / (count - 1).clamp(min=1)


def group_advantages(
    scores: Float[Tensor, "prompts samples"], *, scale: bool
) -> Float[Tensor, "prompts samples"]:
    """Each score minus its group's mean, over the group's spread if `scale`.

        A_i = R_i - R̄                   Dr. GRPO
        A_i = (R_i - R̄) / (σ_R + 10⁻⁶)   GRPO

    Source: Shao et al. 2024 (arXiv:2402.03300), section 4.1.2; without σ, Liu et al. 2025
    (arXiv:2503.20783). The mean contains the sample itself, which makes the gradient smaller by
    (n - 1) / n than that of `leave_one_out`; dividing by σ gives every prompt the same weight,
    however much its completions differ, and another optimum (docs/algorithms.md). σ is the
    population's.

    Args:
        scores: of the n completions of each prompt; NaN where one has failed.

    Returns:
        Advantages without gradient; n counts the usable scores of the group.
    """
    centred, count = _centred(scores)
    if not scale:
        return centred
    variance = centred.square().sum(-1, keepdim=True) / count.clamp(min=1)
    return centred / (variance.sqrt() + _EPSILON)


def _centred(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Deviations from the mean of the usable scores of a row, and how many these are."""
    with torch.no_grad():
        usable = ~scores.isnan()
        count = usable.sum(-1, keepdim=True).to(scores.dtype)
        known = torch.where(usable, scores, 0)
        mean = known.sum(-1, keepdim=True) / count.clamp(min=1)
        return torch.where(usable & (count > 1), known - mean, 0), count
