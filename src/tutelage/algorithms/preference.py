"""Learning a policy from preferences directly, without a reward model in between.

    log π(a), log π(b) ──────┐
    log π_ref(a), log π_ref(b) ─┴─> r(y) = β log π(y) / π_ref(y) ──> Δ = r(a) - r(b) ──> dpo_loss
                                                                   p, that a is better ──┘

A policy that maximises E[r] - β KL(π ‖ π_ref) is π ∝ π_ref exp(r / β), so every policy is the
optimum of some reward, and that reward is β log π / π_ref up to a constant per prompt. Fitting
it to comparisons fits the policy. Nothing is sampled: what the answers never show, the loss
never sees, and it rises or falls as the margin pushes it.

Both answers of a pair lie side by side, `[pairs, 2]`: column 0 is a, column 1 is b.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from tutelage.algorithms.bradley_terry import bradley_terry_loss, pairwise_accuracy
from tutelage.algorithms.loss_output import LossOutput
from tutelage.algorithms.masked import require_same_shape

__all__ = ["DPOKind", "dpo_loss", "implicit_rewards"]

DPOKind = Literal["sigmoid", "hinge", "ipo"]


def implicit_rewards(
    logprobs: Float[Tensor, "pairs 2"],
    ref_logprobs: Float[Tensor, "pairs 2"],
    *,
    beta: float,
    lengths: Float[Tensor, "pairs 2"] | None = None,
) -> Float[Tensor, "pairs 2"]:
    """The reward whose KL-regularised optimum the policy is.

        r(y) = β log π(y | x) / π_ref(y | x)   [divided by |y|, where lengths are given]

    Source: Rafailov et al. 2023 (arXiv:2305.18290), eq. 5 without its constant per prompt, which
    no comparison of two answers to that prompt contains. Per token: Meng et al. 2024
    (arXiv:2405.14734), eq. 4, there with log π_ref = 0.

    Args:
        logprobs: log π of whole answers, summed over their tokens.
        ref_logprobs: the same of the reference; zeros make the reward reference-free.
        lengths: tokens of each answer.

    Raises:
        ValueError: shapes differ, or β is not positive.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, found {beta!r}")
    require_same_shape(logprobs=logprobs, ref_logprobs=ref_logprobs)
    rewards = beta * (logprobs - ref_logprobs)
    if lengths is None:
        return rewards
    require_same_shape(logprobs=logprobs, lengths=lengths)
    return rewards / lengths


def dpo_loss(
    logprobs: Float[Tensor, "pairs 2"],
    ref_logprobs: Float[Tensor, "pairs 2"],
    label: float | Float[Tensor, " pairs"] = 1.0,
    *,
    beta: float,
    kind: DPOKind = "sigmoid",
    smoothing: float = 0.0,
    target_margin: float = 0.0,
    lengths: Float[Tensor, "pairs 2"] | None = None,
    denominator: int | float | None = None,
) -> LossOutput:
    """Direct preference optimisation: a classification loss on the implicit rewards' margin.

        Δ = r(a) - r(b),   p' = (1 - s) p + s (1 - p)
        L = Σ [p' l(Δ) + (1 - p') l(-Δ)] / N

        sigmoid   l(Δ) = -log σ(Δ - m)
        hinge     l(Δ) = max(0, 1 - (Δ - m))
        ipo       l(Δ) = (Δ / β - 1 / (2 β))²

    Source: sigmoid is Rafailov et al. 2023 (arXiv:2305.18290), eq. 7; hinge is SLiC-HF (Zhao et
    al. 2023, arXiv:2305.10425), eq. 2, on the reward's margin; ipo is Azar et al. 2023
    (arXiv:2310.12036), eq. 17; smoothing is conservative DPO (Mitchell 2023,
    ericmitchell.ai/cdpo.pdf); lengths and m give SimPO (Meng et al. 2024, arXiv:2405.14734), eq.
    6, where the reference is left out. Departure: the label p is a probability. A certain label
    has its minimum at Δ = ∞ (sigmoid), at 1 + m and beyond (hinge), or at ½ (ipo): only ipo, a soft
    label or smoothing ask for a finite margin. With p the sigmoid asks for the log odds of p', ipo
    for p' - ½.

    Args:
        logprobs: log π of whole answers; the only argument with a gradient.
        ref_logprobs: log π_ref of the same.
        label: p, the probability that the first answer is better.
        beta: β, what a nat of divergence costs.
        kind: l.
        smoothing: s, how often labels are believed to be the wrong way round.
        target_margin: m, by how much the better answer is to win; not for ipo.
        lengths: tokens of each answer, to make the rewards a mean per token.
        denominator: N of the whole optimiser step; the pairs given, when absent.

    Returns:
        The loss, and `dpo/` metrics: `accuracy`, `margin` of the better answer,
        `chosen_reward`, `rejected_reward`, `chosen_logprob`, `rejected_logprob` and `kl`, the
        estimate k1 of KL(π_ref ‖ π) that holds where π_ref wrote the answers. The margin can
        rise while the better answer's probability falls (Pal et al. 2024, arXiv:2402.13228).

    Raises:
        ValueError: shapes differ, a number is out of range, or there is no such loss.
    """
    if kind not in get_args(DPOKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(DPOKind))}, found {kind!r}")
    if kind == "ipo" and target_margin:
        raise ValueError(f"ipo has its own target margin, found target_margin {target_margin!r}")
    ref_logprobs = ref_logprobs.detach()
    rewards = implicit_rewards(logprobs, ref_logprobs, beta=beta, lengths=lengths)
    margin = rewards[:, 0] - rewards[:, 1]
    count = max(len(margin), 1) if denominator is None else denominator
    if kind == "sigmoid":
        loss = bradley_terry_loss(
            margin, label, smoothing=smoothing, offset=target_margin, denominator=count
        )
    else:
        p = _smoothed(label, smoothing)
        first = _penalty(margin, kind, beta, target_margin)
        second = _penalty(-margin, kind, beta, target_margin)
        loss = (p * first + (1 - p) * second).sum() / count
    with torch.no_grad():
        metrics = _metrics(logprobs, ref_logprobs, rewards, label)
        return LossOutput(loss, {name: each.sum() / count for name, each in metrics.items()})


def _smoothed(label: float | Tensor, smoothing: float) -> float | Tensor:
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing must lie in [0, 0.5), found {smoothing!r}")
    if not isinstance(label, Tensor) and not 0 <= label <= 1:
        raise ValueError(f"a label is the probability that the first is better, found {label!r}")
    return (1 - smoothing) * label + smoothing * (1 - label)


def _penalty(
    margin: Tensor, kind: Literal["hinge", "ipo"], beta: float, target_margin: float
) -> Tensor:
    if kind == "hinge":
        return (1 + target_margin - margin).clamp(min=0)
    return ((margin - 0.5) / beta).square()


def _metrics(
    logprobs: Tensor, ref_logprobs: Tensor, rewards: Tensor, label: float | Tensor
) -> dict[str, Tensor]:
    """Numbers per pair; of a tie, the first answer counts as the better one in name only."""
    label = torch.as_tensor(label, dtype=rewards.dtype, device=rewards.device)
    label = label.expand(len(rewards))
    margin = rewards[:, 0] - rewards[:, 1]
    better = (label < 0.5).long()[:, None]

    def of(column: Tensor, values: Tensor) -> Tensor:
        return values.gather(1, column)[:, 0]

    return {
        "dpo/accuracy": pairwise_accuracy(margin, label),
        "dpo/margin": margin * torch.sign(label - 0.5),
        "dpo/chosen_reward": of(better, rewards),
        "dpo/rejected_reward": of(1 - better, rewards),
        "dpo/chosen_logprob": of(better, logprobs),
        "dpo/rejected_logprob": of(1 - better, logprobs),
        "dpo/kl": (ref_logprobs - logprobs).mean(1),
    }
