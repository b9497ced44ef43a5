"""Learning a scalar reward from preferences between two answers.

    r(a) - r(b) = margin ──┬──> bradley_terry_loss   label: the probability that a is better
                           ├──> rao_kupper_loss      ties are an outcome of their own
                           └──> noisy_label_loss     some labels are wrong, and how many is known

Only margins are seen: a constant added to all scores changes nothing, so the scores have no
zero until they are centred.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["bradley_terry_loss", "noisy_label_loss", "pairwise_accuracy", "rao_kupper_loss"]


def bradley_terry_loss(
    margin: Float[Tensor, "*pairs"],
    label: float | Float[Tensor, "*pairs"] = 1.0,
    *,
    smoothing: float = 0.0,
    offset: float | Float[Tensor, "*pairs"] = 0.0,
    weights: float | Float[Tensor, "*pairs"] = 1.0,
    denominator: int | float | None = None,
) -> Float[Tensor, ""]:
    """Negative log-likelihood of preferences under the Bradley-Terry model.

        p' = (1 - s) p + s (1 - p)
        L = Σ w [-p' log σ(Δ - m) - (1 - p') log σ(-Δ - m)] / Σ w

    Source: Bradley & Terry 1952; as a reward model loss, Stiennon et al. 2020
    (arXiv:2009.01325), section 3.4. Departures: the label p is a probability (1 for a
    clear choice, 0.5 for a tie, anything between for a judge); smoothing s bounds the
    margin that a certain label asks for by logit(1 - s); the offset m asks the winner to win by
    that much (Touvron et al. 2023, arXiv:2307.09288, eq. 2).

    Args:
        margin: Δ, the score of the first answer minus that of the second.
        label: p, the probability that the first is better.
        offset: m, one for all pairs or one each: more where the choice was clearer.
        weights: w, how much each pair counts.
        denominator: weight of the pairs of the whole optimiser step; of those given, when absent.

    Raises:
        ValueError: a number label or the smoothing is out of range.
    """
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing must lie in [0, 0.5), found {smoothing!r}")
    _require_probability(label)
    p = (1 - smoothing) * label + smoothing * (1 - label)
    loss = -p * F.logsigmoid(margin - offset) - (1 - p) * F.logsigmoid(-margin - offset)
    return _weighted_mean(loss, weights, denominator)


def rao_kupper_loss(
    margin: Float[Tensor, "*pairs"],
    label: float | Float[Tensor, "*pairs"],
    *,
    threshold: float,
    weights: float | Float[Tensor, "*pairs"] = 1.0,
    denominator: int | float | None = None,
) -> Float[Tensor, ""]:
    """Negative log-likelihood of wins, losses and ties.

        P(a) = σ(Δ - θ)    P(b) = σ(-Δ - θ)    P(tie) = (e^{2θ} - 1) σ(Δ - θ) σ(-Δ - θ)

    Source: Rao & Kupper 1967, "Ties in paired-comparison experiments"; for reward models, Guo et
    al. 2024 (arXiv:2411.02442), eq. 5 and 6. Two answers whose scores are within about θ of
    each other are called equal. Departure: a label that is neither 0, ½ nor 1 is a mixture of
    both wins; ½ is a tie.

    Args:
        margin: Δ, the score of the first answer minus that of the second.
        label: the probability that the first is better, ½ for a tie.
        threshold: θ, in units of the score.
        weights: how much each pair counts.
        denominator: as in `bradley_terry_loss`.

    Raises:
        ValueError: θ is not positive, which leaves ties no probability.
    """
    if not threshold > 0:
        raise ValueError(f"the threshold of a tie must be positive, found {threshold!r}")
    _require_probability(label)
    p = torch.as_tensor(label, dtype=margin.dtype, device=margin.device)
    first, second = F.logsigmoid(margin - threshold), F.logsigmoid(-margin - threshold)
    tie = first + second + math.log(math.expm1(2 * threshold))
    loss = -torch.where(p == 0.5, tie, p * first + (1 - p) * second)
    return _weighted_mean(loss, weights, denominator)


def noisy_label_loss(
    margin: Float[Tensor, "*pairs"],
    label: float | Float[Tensor, "*pairs"] = 1.0,
    *,
    error: float | Float[Tensor, "*pairs"],
    weights: float | Float[Tensor, "*pairs"] = 1.0,
    denominator: int | float | None = None,
) -> Float[Tensor, ""]:
    """Negative log-likelihood of labels of which a known share is wrong.

        q = (1 - ε) σ(Δ) + ε σ(-Δ)
        L = Σ w [-p log q - (1 - p) log(1 - q)] / Σ w

    Source: forward correction, Patrini et al. 2017 (arXiv:1609.03683), theorem 2, for two
    classes. Where smoothing shrinks the margins, this finds those that labels without errors
    would have given, and a pair that contradicts a large margin pulls at it less and less.

    Args:
        margin: Δ, the score of the first answer minus that of the second.
        label: p, the probability that the first is better.
        error: ε in [0, ½), the share of wrong labels, one for all pairs or one for each annotator.
        weights: how much each pair counts.
        denominator: as in `bradley_terry_loss`.

    Raises:
        ValueError: a number label or error is out of range.
    """
    _require_probability(label)
    if not isinstance(error, Tensor) and not 0 <= error < 0.5:
        raise ValueError(f"the share of wrong labels must lie in [0, 0.5), found {error!r}")
    share = torch.as_tensor(error, dtype=margin.dtype, device=margin.device)
    right, wrong = F.logsigmoid(margin), F.logsigmoid(-margin)
    first = torch.logaddexp(torch.log1p(-share) + right, share.log() + wrong)
    second = torch.logaddexp(torch.log1p(-share) + wrong, share.log() + right)
    return _weighted_mean(-label * first - (1 - label) * second, weights, denominator)


def _require_probability(label: float | Tensor) -> None:
    if not isinstance(label, Tensor) and not 0 <= label <= 1:
        raise ValueError(f"a label is the probability that the first is better, found {label!r}")


def _weighted_mean(
    loss: Tensor, weights: float | Tensor, denominator: int | float | None
) -> Tensor:
    if denominator is None:
        total = torch.as_tensor(weights, dtype=loss.dtype).expand(loss.shape).sum()
        denominator = float(total) or 1.0
    return (weights * loss).sum() / denominator


def pairwise_accuracy(
    margin: Float[Tensor, "*pairs"], label: float | Float[Tensor, "*pairs"] = 1.0
) -> Float[Tensor, "*pairs"]:
    """Whether the sign of the margin agrees with the label: 1, 0, or ½ when either is a tie.

        y = ½ (1 + sign(Δ) sign(p - ½))

    Source: the area under the ROC curve counts ties the same way (Hanley & McNeil 1982). A
    scorer that gives equal scores is then worth a coin, neither perfect nor hopeless.
    """
    label = torch.as_tensor(label, dtype=margin.dtype, device=margin.device)
    return (1 + margin.detach().sign() * (label - 0.5).sign()) / 2
