"""How much there is to learn from a prompt, and how often to draw it.

scores of n completions of a prompt ──> score_variance, or pass_rate ──> draw_probabilities

Where all completions of a prompt are worth the same, their advantages are 0 and nothing is learned:
it is solved, or out of reach. Rows of a tensor are prompts, its columns the completions of one
prompt. A score that is NaN has failed, and counts nowhere.
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["draw_probabilities", "pass_rate", "score_variance"]


def score_variance(scores: Float[Tensor, "prompts samples"]) -> Float[Tensor, " prompts"]:
    """Learnability: the variance of a prompt's scores.

        v = 1 / n Σ_i (R_i - R̄)²        = p (1 - p) for scores of 0 and 1, of which a share p is 1

    Source: Foster et al. 2025 (arXiv:2502.12272), who prefer prompts with a high p (1 - p). Bae et
    al. 2025 (arXiv:2504.03380) show that it bounds from below how much the policy improves.

    Returns:
        NaN where fewer than two scores are usable.
    """
    usable = ~scores.isnan()
    count = usable.sum(1)
    held = scores.nan_to_num()
    mean = held.sum(1) / count.clamp(min=1)
    squares = torch.where(usable, (held - mean[:, None]).square(), 0.0)
    return torch.where(count > 1, squares.sum(1) / count.clamp(min=1), torch.nan)


def pass_rate(
    scores: Float[Tensor, "prompts samples"], *, pass_score: float
) -> Float[Tensor, " prompts"]:
    """Share of a prompt's completions that score at least `pass_score`.

        p = 1 / n Σ_i [R_i ≥ s]

    Source: by definition. DAPO (Yu et al. 2025, arXiv:2503.14476) keeps prompts with 0 < p < 1;
    Bae et al. 2025 (arXiv:2504.03380) keep those with a p between two bounds.

    Returns:
        NaN where no score is usable.
    """
    count = (~scores.isnan()).sum(1)
    # A comparison with NaN is false.
    passed = (scores >= pass_score).sum(1)
    return torch.where(count > 0, passed / count.clamp(min=1), torch.nan).to(scores.dtype)


def draw_probabilities(
    weights: Float[Tensor, " prompts"], *, uniform_share: float
) -> Float[Tensor, " prompts"]:
    """Probabilities in proportion to weights, mixed with the uniform distribution.

        q_i = ε / N + (1 - ε) w_i / Σ_j w_j

    Source: by definition, the mixture of ε-greedy exploration.

    Args:
        weights: none below 0; NaN where nothing is known of a prompt yet. Such a one weighs as much
            as the mean of the known, and alone has weight where that mean is 0.
        uniform_share: ε; above 0, a weight of 0 does not last for ever.

    Returns:
        Uniform where all weights are known and 0.
    """
    known = ~weights.isnan()
    mean = weights[known].mean() if known.any() else torch.zeros((), dtype=weights.dtype)
    filled = torch.where(known, weights, mean if mean > 0 else 1.0)
    uniform = torch.full_like(filled, 1.0 / len(filled))
    total = filled.sum()
    in_proportion = filled / total if total > 0 else uniform
    return uniform_share * uniform + (1.0 - uniform_share) * in_proportion
