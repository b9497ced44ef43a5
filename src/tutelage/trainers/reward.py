"""Reward-model training on preferences.

    L = - p log sigma(r_a - r_b) - (1 - p) log sigma(r_b - r_a) + eta (r_a + r_b)^2

Bradley & Terry 1952 with soft labels (Lee et al. 2023, arXiv:2309.00267); the second term fixes
the additive constant that comparisons leave free (Eisenstein et al. 2023, arXiv:2312.09244).
All pairs of one prompt share a minibatch, and each answer goes through the model once, in how many
pairs it may stand: K answers give K (K - 1) / 2 pairs for K forward passes, and none is overfitted
(Ouyang et al. 2022, arXiv:2203.02155, section 3.5).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from tutelage.algorithms import LossOutput, bradley_terry_loss, pairwise_accuracy
from tutelage.models import RewardModel
from tutelage.records import Preference
from tutelage.trainers.learner import Learner

__all__ = [
    "EncodedPair",
    "PairBatch",
    "RewardStep",
    "by_prompt",
    "encode_pairs",
    "margins",
    "train_reward",
]


@dataclass(frozen=True)
class EncodedPair:
    """A preference in the reward model's own tokens."""

    a: tuple[int, ...]
    b: tuple[int, ...]
    p_a: float
    prompt_id: str = ""


@dataclass(frozen=True)
class PairBatch:
    """Pairs that can be cut up by the learner."""

    pairs: Sequence[EncodedPair]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    @property
    def row_lengths(self) -> list[int]:
        """Tokens of both answers, padded alike."""
        return [2 * max(len(pair.a), len(pair.b)) for pair in self.pairs]

    @property
    def denominator(self) -> float:
        """Number of pairs."""
        return float(len(self.pairs))

    def select(self, rows: Sequence[int]) -> Self:
        """The given pairs."""
        return type(self)([self.pairs[i] for i in rows])


@dataclass(frozen=True)
class RewardStep:
    """One optimiser step."""

    index: int
    metrics: Mapping[str, float]


def encode_pairs(
    model: RewardModel, preferences: Iterable[Preference]
) -> tuple[list[EncodedPair], int]:
    """Encodes preferences; returns the pairs and how many were too long to be scored whole."""
    pairs, too_long = [], 0
    for preference in preferences:
        comparison = preference.comparison
        a = model.encode(comparison.prompt, comparison.a)
        b = model.encode(comparison.prompt, comparison.b)
        if a is None or b is None:
            too_long += 1
        else:
            pairs.append(EncodedPair(a, b, preference.p_a, comparison.prompt.id))
    return pairs, too_long


def by_prompt(
    pairs: Sequence[EncodedPair], size: int, steps: int, generator: torch.Generator
) -> Iterator[list[EncodedPair]]:
    """`steps` minibatches of at least `size` pairs, the pairs of a prompt always together."""
    groups: dict[str, list[EncodedPair]] = {}
    for pair in pairs:
        groups.setdefault(pair.prompt_id, []).append(pair)
    order = list(groups.values())
    waiting: list[int] = []
    for _ in range(steps):
        batch: list[EncodedPair] = []
        while len(batch) < min(size, len(pairs)):
            if not waiting:
                waiting = torch.randperm(len(order), generator=generator).tolist()
            batch += order[waiting.pop()]
        yield batch


def _scores(model: RewardModel, pairs: Sequence[EncodedPair]) -> tuple[Tensor, Tensor]:
    """Scores of the first and of the second answers; an answer in several pairs is read once."""
    rows = {row: i for i, row in enumerate(dict.fromkeys(x for p in pairs for x in (p.a, p.b)))}
    tokens, mask = model.pad(list(rows))
    scores = model(tokens, mask)
    first = torch.tensor([rows[pair.a] for pair in pairs], device=scores.device)
    second = torch.tensor([rows[pair.b] for pair in pairs], device=scores.device)
    return scores[first], scores[second]


def train_reward(
    model: RewardModel,
    learner: Learner,
    batches: Iterable[Sequence[EncodedPair]],
    *,
    smoothing: float = 0.0,
    centring: float = 0.01,
) -> Iterator[RewardStep]:
    """Yields one `RewardStep` per minibatch, with `loss`, `accuracy` and `margin`.

    Args:
        model: trained in place.
        learner: owns the optimiser.
        batches: minibatches of pairs.
        smoothing: label smoothing of the Bradley-Terry loss.
        centring: eta, the weight of (r_a + r_b)^2.
    """

    def loss(batch: PairBatch, denominator: float) -> LossOutput:
        score_a, score_b = _scores(model, batch.pairs)
        label = torch.tensor([pair.p_a for pair in batch.pairs], device=score_a.device)
        margin = score_a - score_b
        preference = bradley_terry_loss(margin, label, smoothing=smoothing, denominator=denominator)
        centre = centring * (score_a + score_b).square().sum() / denominator
        metrics = {
            "accuracy": pairwise_accuracy(margin, label).sum() / denominator,
            "margin": (margin.detach() * torch.sign(label - 0.5)).sum() / denominator,
        }
        return LossOutput(preference + centre, metrics)

    model.train()
    for index, pairs in enumerate(batches):
        yield RewardStep(index, learner.step(loss, PairBatch(pairs)))


@torch.no_grad()
def margins(
    model: RewardModel, pairs: Sequence[EncodedPair], *, rows_at_once: int = 64
) -> list[float]:
    """r_a - r_b of each pair."""
    model.eval()
    order = sorted(range(len(pairs)), key=lambda i: -max(len(pairs[i].a), len(pairs[i].b)))
    result = [0.0] * len(pairs)
    for start in range(0, len(order), rows_at_once):
        chosen = order[start : start + rows_at_once]
        a, b = _scores(model, [pairs[i] for i in chosen])
        for i, value in zip(chosen, (a - b).tolist(), strict=True):
            result[i] = value
    return result
