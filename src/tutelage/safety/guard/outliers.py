"""Answers that look to a reward model like none it has seen from the starting policy.

    answers before training ──last hidden state──> two clouds, each of half of the prompts
    answers now ──> squared Mahalanobis distance from the cloud that lacks their own prompt
                └──> beyond the 95 % quantile of before?

Miao et al. 2024, "InfoRM", arXiv:2402.09345, use the bottleneck of a special reward model; here it
is the last hidden layer of any. Distances are always taken to the half of the answers that lacks
the prompt's own, before training too, so that before and after are alike without hacking.

Covariances of few answers in many dimensions are shrunk towards a multiple of the identity by the
amount of Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
matrices".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from tutelage.models import RewardModel
from tutelage.records import Prompt

__all__ = ["Clouds", "last_states", "shrunk_covariance"]

_BATCH = 32
_QUANTILE = 0.95


@torch.no_grad()
def last_states(
    model: RewardModel, prompts: Sequence[Prompt], texts: Sequence[str]
) -> Float[Tensor, "answers width"]:
    """The states that a causal reward model's head reads; NaN of a text too long for it."""
    encoded = [model.encode(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    width = int(model.model.config.hidden_size)
    states = torch.full((len(encoded), width), torch.nan, dtype=torch.float64)
    whole = [i for i, ids in enumerate(encoded) if ids]
    for start in range(0, len(whole), _BATCH):
        rows = whole[start : start + _BATCH]
        tokens, mask = model.pad([encoded[i] or () for i in rows])
        hidden = model.backbone(tokens, mask)
        last = mask.sum(1) - 1
        found = hidden[torch.arange(len(rows), device=hidden.device), last]
        states[torch.tensor(rows)] = found.double().cpu()
    return states


@dataclass(frozen=True)
class Clouds:
    """Where answers before training lie, in two halves."""

    centres: Float[Tensor, "2 width"]
    precisions: Float[Tensor, "2 width width"]
    threshold: float

    @classmethod
    def fit(cls, states: Float[Tensor, "answers width"]) -> Self:
        """Of answers before training, one per prompt; every other one is in the same half."""
        halves = [states[half::2] for half in (0, 1)]
        halves = [half[half.isfinite().all(1)] for half in halves]
        centres = torch.stack([half.mean(0) for half in halves])
        precisions = torch.stack([torch.linalg.inv(shrunk_covariance(half)) for half in halves])
        unknown = cls(centres, precisions, float("inf"))
        distances = unknown.distances(states)
        threshold = torch.quantile(distances[distances.isfinite()], _QUANTILE)
        return cls(centres, precisions, float(threshold))

    def distances(self, states: Float[Tensor, "answers width"]) -> Float[Tensor, " answers"]:
        """Squared Mahalanobis distance of each from the half that lacks its prompt."""
        other = 1 - torch.arange(len(states)) % 2
        gap = states - self.centres[other]
        return torch.einsum("ni,nij,nj->n", gap, self.precisions[other], gap)

    def outside(self, states: Float[Tensor, "answers width"]) -> list[float]:
        """1 for each answer beyond the threshold, 0 within it, NaN where there is no state."""
        distances = self.distances(states)
        flags = torch.where(distances.isfinite(), (distances > self.threshold).double(), torch.nan)
        return [float(flag) for flag in flags]


def shrunk_covariance(rows: Float[Tensor, "rows width"]) -> Float[Tensor, "width width"]:
    """(1 - rho) S + rho m I, with S the covariance, m its mean variance, and rho estimated."""
    count, width = rows.shape
    centred = rows - rows.mean(0)
    covariance = centred.T @ centred / count
    identity = torch.eye(width, dtype=rows.dtype)
    mean_variance = covariance.trace() / width
    spread = (covariance - mean_variance * identity).square().sum()
    squares = centred.square().sum(1)
    fits = torch.einsum("ni,ij,nj->n", centred, covariance, centred)
    noise = (squares.square() - 2 * fits + covariance.square().sum()).sum() / count**2
    rho = float((noise / spread).clamp(0.0, 1.0)) if spread > 0 else 1.0
    # A width in which nothing varies at all must still have an inverse.
    floor = torch.finfo(rows.dtype).eps * max(1.0, float(mean_variance))
    return (1 - rho) * covariance + (rho * mean_variance + floor) * identity
