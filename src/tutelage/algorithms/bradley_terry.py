"""Learning a scalar reward from preferences between two answers.

    r(chosen) - r(rejected) = margin ──> bradley_terry_loss <── probability that the first is better

Only margins are seen: a constant added to all scores changes nothing, so the scores have no
zero until they are centred.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["bradley_terry_loss", "pairwise_accuracy"]


def bradley_terry_loss(
    margin: Float[Tensor, "*pairs"],
    label: float | Float[Tensor, "*pairs"] = 1.0,
    *,
    smoothing: float = 0.0,
    offset: float | Float[Tensor, "*pairs"] = 0.0,
    denominator: int | float | None = None,
) -> Float[Tensor, ""]:
    """Negative log-likelihood of preferences under the Bradley-Terry model.

        p' = (1 - s) p + s (1 - p)
        L = Σ [-p' log σ(Δ - m) - (1 - p') log σ(-Δ - m)] / N

    Source: Bradley & Terry 1952; as a reward model loss, Stiennon et al. 2020
    (arXiv:2009.01325), section 3.4. Departures: the label p is a probability (1 for a
    clear choice, 0.5 for a tie, anything between for a judge); smoothing s bounds the
    margin that a certain label asks for by logit(1 - s); the offset m asks the winner to win by
    that much (Touvron et al. 2023, arXiv:2307.09288, eq. 2).

    Args:
        margin: Δ, the score of the first answer minus that of the second.
        label: p, the probability that the first is better.
        denominator: number of pairs of the whole optimiser step; those given, when absent.

    Raises:
        ValueError: a number label or the smoothing is out of range.
    """
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing must lie in [0, 0.5), found {smoothing!r}")
    if not isinstance(label, Tensor) and not 0 <= label <= 1:
        raise ValueError(f"a label is the probability that the first is better, found {label!r}")
    p = (1 - smoothing) * label + smoothing * (1 - label)
    loss = -p * F.logsigmoid(margin - offset) - (1 - p) * F.logsigmoid(-margin - offset)
    return loss.sum() / (max(margin.numel(), 1) if denominator is None else denominator)


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
