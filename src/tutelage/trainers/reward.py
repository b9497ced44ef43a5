"""Reward-model training on preferences.

    L = - p log sigma(r_a - r_b) - (1 - p) log sigma(r_b - r_a) + eta (r_a + r_b)^2

Bradley & Terry 1952 with soft labels (Lee et al. 2023, arXiv:2309.00267); the second term fixes
the additive constant that comparisons leave free (Eisenstein et al. 2023, arXiv:2312.09244).
All pairs of one prompt share a minibatch, and each answer goes through the model once, in how many
pairs it may stand: K answers give K (K - 1) / 2 pairs for K forward passes, and none is overfitted
(Ouyang et al. 2022, arXiv:2203.02155, section 3.5). The prompt that they answer is read once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from tutelage.algorithms import LossOutput, bradley_terry_loss, pairwise_accuracy
from tutelage.config.training import READ_TOKENS
from tutelage.distributed import Cores
from tutelage.models import RewardModel
from tutelage.models.microbatches import MicroBatches
from tutelage.models.shared_prefix import shared_length
from tutelage.records import Preference, Prompt
from tutelage.trainers.batches import Shuffled
from tutelage.trainers.learner import Learner

__all__ = [
    "ComparedAnswers",
    "ComparisonBatch",
    "Minibatches",
    "RewardStep",
    "encode_comparisons",
    "margins",
    "train_reward",
]

_PAIRS_TOGETHER = 32
"""Pairs of one prompt beyond which attention over its row costs more than reading it again."""


@dataclass(frozen=True)
class ComparedAnswers:
    """Answers to one prompt in the reward model's own tokens, and how they compare."""

    texts: tuple[tuple[int, ...], ...]
    """Token ids of the prompt with each answer."""
    pairs: tuple[tuple[int, int, float], ...]
    """Two of the texts by number, and the probability that the first is the better one."""


@dataclass(frozen=True)
class ComparisonBatch:
    """Compared answers that can be cut up by the learner, those to one prompt never apart."""

    groups: Sequence[ComparedAnswers]

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.groups)

    @property
    def row_lengths(self) -> list[int]:
        """Tokens read for each prompt; what its answers share is read once."""
        return [shared_length(group.texts) for group in self.groups]

    @property
    def denominator(self) -> float:
        """Number of pairs."""
        return float(sum(len(group.pairs) for group in self.groups))

    def select(self, rows: Sequence[int]) -> Self:
        """The given prompts."""
        return type(self)([self.groups[i] for i in rows])


@dataclass(frozen=True)
class RewardStep:
    """One optimiser step."""

    index: int
    metrics: Mapping[str, float]


def encode_comparisons(
    model: RewardModel, preferences: Iterable[Preference]
) -> tuple[list[ComparedAnswers], int]:
    """Encodes preferences, prompt by prompt, each answer once.

    Returns the answers and how many pairs are left out because one of theirs is too long to be
    scored whole.
    """
    by_prompt: dict[Prompt, list[Preference]] = {}
    for preference in preferences:
        by_prompt.setdefault(preference.comparison.prompt, []).append(preference)
    groups = [
        _encode(model, prompt, labels[start : start + _PAIRS_TOGETHER])
        for prompt, labels in by_prompt.items()
        for start in range(0, len(labels), _PAIRS_TOGETHER)
    ]
    encoded = sum(len(group.pairs) for group in groups)
    too_long = sum(map(len, by_prompt.values())) - encoded
    return [group for group in groups if group.pairs], too_long


def _encode(
    model: RewardModel, prompt: Prompt, preferences: Sequence[Preference]
) -> ComparedAnswers:
    answers = dict.fromkeys(
        answer for row in preferences for answer in (row.comparison.a, row.comparison.b)
    )
    encoded = {answer: model.encode(prompt, answer) for answer in answers}
    texts = list(dict.fromkeys(ids for ids in encoded.values() if ids is not None))
    number = {ids: i for i, ids in enumerate(texts)}
    pairs = []
    for row in preferences:
        a, b = encoded[row.comparison.a], encoded[row.comparison.b]
        if a is not None and b is not None:
            pairs.append((number[a], number[b], row.p_a))
    return ComparedAnswers(tuple(texts), tuple(pairs))


class Minibatches(Shuffled[ComparedAnswers]):
    """`steps` minibatches of at least `size` pairs, or of all there are.

    Every prompt comes once before any comes again.
    """

    def _next(self) -> list[ComparedAnswers]:
        size = min(self.size, sum(len(group.pairs) for group in self.items))
        batch: list[ComparedAnswers] = []
        while sum(len(group.pairs) for group in batch) < size:
            if not self._order:
                self._order = self._permutation()
            batch.append(self.items[self._order.pop()])
        return batch


def _compare(
    model: RewardModel, groups: Sequence[ComparedAnswers]
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the first and of the second answer of each pair, and its label."""
    scores = model.of_groups([group.texts for group in groups])
    first, second, labels = [], [], []
    start = 0
    for group in groups:
        for a, b, p_a in group.pairs:
            first.append(start + a)
            second.append(start + b)
            labels.append(p_a)
        start += len(group.texts)
    return scores[first], scores[second], torch.tensor(labels, device=scores.device)


def train_reward(
    model: RewardModel,
    learner: Learner,
    batches: Iterable[Sequence[ComparedAnswers]],
    *,
    smoothing: float = 0.0,
    centring: float = 0.01,
    start: int = 0,
) -> Iterator[RewardStep]:
    """Yields one `RewardStep` per minibatch, with `loss`, `accuracy` and `margin`.

    Args:
        model: trained in place.
        learner: owns the optimiser.
        batches: minibatches of compared answers.
        smoothing: label smoothing of the Bradley-Terry loss.
        centring: eta, the weight of (r_a + r_b)^2.
        start: number of the first step; not 0 where training is resumed.
    """

    def loss(batch: ComparisonBatch, denominator: float) -> LossOutput:
        score_a, score_b, label = _compare(model, batch.groups)
        margin = score_a - score_b
        preference = bradley_terry_loss(margin, label, smoothing=smoothing, denominator=denominator)
        centre = centring * (score_a + score_b).square().sum() / denominator
        metrics = {
            "accuracy": pairwise_accuracy(margin, label).sum() / denominator,
            "margin": (margin.detach() * torch.sign(label - 0.5)).sum() / denominator,
        }
        return LossOutput(preference + centre, metrics)

    model.train()
    for index, groups in enumerate(batches, start):
        metrics = learner.step(loss, ComparisonBatch(groups), describe=partial(_describe, groups))
        yield RewardStep(index, metrics)


def _describe(groups: Sequence[ComparedAnswers], rows: Sequence[int]) -> list[dict[str, Any]]:
    return [{"row": row, **asdict(groups[row])} for row in rows]


@torch.no_grad()
def margins(
    model: RewardModel,
    groups: Sequence[ComparedAnswers],
    *,
    batch_tokens: int = READ_TOKENS,
    cores: Cores | None = None,
) -> tuple[list[float], list[float]]:
    """r_a - r_b and the label of each pair, group by group.

    Args:
        model: left in evaluation mode.
        groups: compared answers.
        batch_tokens: read at once, padding included; fewer where memory runs out.
        cores: read a batch each.
    """
    model.eval()

    def read(rows: Sequence[int]) -> list[list[float]]:
        a, b, _ = _compare(model, [groups[row] for row in rows])
        remaining = iter((a - b).tolist())
        return [[next(remaining) for _ in groups[row].pairs] for row in rows]

    lengths = ComparisonBatch(groups).row_lengths
    measured = MicroBatches(batch_tokens).values(lengths, read, cores)
    labels = [p_a for group in groups for _, _, p_a in group.pairs]
    return [margin for row in measured for margin in row], labels
