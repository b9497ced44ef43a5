"""Reward-model training on preferences.

    L = w [- p log sigma(r_a - r_b - m) - (1 - p) log sigma(r_b - r_a - m)] + eta (r_a + r_b)^2

Bradley & Terry 1952 with soft labels (Lee et al. 2023, arXiv:2309.00267); the second term fixes
the additive constant that comparisons leave free (Eisenstein et al. 2023, arXiv:2312.09244).
The weight w says how far an annotator is trusted, the offset m how clear the choice was (Touvron et
al. 2023, arXiv:2307.09288, eq. 2). `LabelTerms` decides both.
All pairs of one prompt share a minibatch, and each answer goes through the model once, in how many
pairs it may stand: K answers give K (K - 1) / 2 pairs for K forward passes, and none is overfitted
(Ouyang et al. 2022, arXiv:2203.02155, section 3.5). The prompt that they answer is read once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from tutelage.algorithms import (
    LossOutput,
    bradley_terry_loss,
    noisy_label_loss,
    pairwise_accuracy,
    rao_kupper_loss,
)
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
    "LabelTerms",
    "LabelledPair",
    "Minibatches",
    "RewardStep",
    "encode_comparisons",
    "margins",
    "preference_margins",
    "train_reward",
]

_PAIRS_TOGETHER = 32
"""Pairs of one prompt beyond which attention over its row costs more than reading it again."""


class LabelledPair(NamedTuple):
    """Two texts by number, and what the judgement of them says and is worth."""

    first: int
    second: int
    p_a: float
    """Probability that the first is the better one."""
    weight: float = 1.0
    """How much the pair counts."""
    offset: float = 0.0
    """Score by which the better one has to win."""
    error: float = 0.0
    """Probability that the judgement is the wrong way round."""
    row: int = 0
    """Number of the judgement among those that were encoded together."""


@dataclass(frozen=True)
class LabelTerms:
    """What a judgement is worth, by who made it.

    A name is looked up as the annotator's, then as the source of the prompt, then as the kind
    (human, ai, verifier, synthetic).
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    """Name -> factor on the pair's own weight; 1 for names that are missing."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Name -> share of judgements that are wrong; 0 for names that are missing."""
    strength_margin: float = 0.0
    """Score by which the better answer has to win for each unit of strength."""

    def pair(self, first: int, second: int, preference: Preference, row: int = 0) -> LabelledPair:
        """The judgement of two texts given by number."""
        return LabelledPair(
            first,
            second,
            preference.p_a,
            preference.weight * _named(self.weights, preference, 1.0),
            self.strength_margin * (preference.strength or 0.0),
            _named(self.errors, preference, 0.0),
            row,
        )


def _named(table: Mapping[str, float], preference: Preference, default: float) -> float:
    names = (preference.annotator, preference.comparison.prompt.source, preference.kind)
    return next((table[name] for name in names if name in table), default)


@dataclass(frozen=True)
class ComparedAnswers:
    """Answers to one prompt in the reward model's own tokens, and how they compare."""

    texts: tuple[tuple[int, ...], ...]
    """Token ids of the prompt with each answer."""
    pairs: tuple[LabelledPair, ...]
    """How they were judged."""
    prompt: str = ""
    """Id of the prompt."""


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
        """Weight of the pairs: their number, where each weighs 1."""
        return float(sum(pair.weight for group in self.groups for pair in group.pairs))

    def select(self, rows: Sequence[int]) -> Self:
        """The given prompts."""
        return type(self)([self.groups[i] for i in rows])


@dataclass(frozen=True)
class RewardStep:
    """One optimiser step."""

    index: int
    metrics: Mapping[str, float]


def encode_comparisons(
    model: RewardModel, preferences: Iterable[Preference], terms: LabelTerms | None = None
) -> tuple[list[ComparedAnswers], int]:
    """Encodes preferences, prompt by prompt, each answer once.

    Args:
        model: whose tokenizer and template are used.
        preferences: judgements, those of one prompt anywhere among them.
        terms: what they are worth; without, as they say themselves.

    Returns the answers and how many pairs are left out because one of theirs is too long to be
    scored whole.
    """
    by_prompt: dict[Prompt, list[tuple[int, Preference]]] = {}
    for row, preference in enumerate(preferences):
        by_prompt.setdefault(preference.comparison.prompt, []).append((row, preference))
    groups = [
        _encode(model, prompt, labels[start : start + _PAIRS_TOGETHER], terms or LabelTerms())
        for prompt, labels in by_prompt.items()
        for start in range(0, len(labels), _PAIRS_TOGETHER)
    ]
    encoded = sum(len(group.pairs) for group in groups)
    too_long = sum(map(len, by_prompt.values())) - encoded
    return [group for group in groups if group.pairs], too_long


def _encode(
    model: RewardModel,
    prompt: Prompt,
    preferences: Sequence[tuple[int, Preference]],
    terms: LabelTerms,
) -> ComparedAnswers:
    answers = dict.fromkeys(
        answer for _, row in preferences for answer in (row.comparison.a, row.comparison.b)
    )
    encoded = {answer: model.encode(prompt, answer) for answer in answers}
    texts = list(dict.fromkeys(ids for ids in encoded.values() if ids is not None))
    number = {ids: i for i, ids in enumerate(texts)}
    pairs = []
    for row, preference in preferences:
        comparison = preference.comparison
        a, b = encoded[comparison.a], encoded[comparison.b]
        if a is not None and b is not None:
            pairs.append(terms.pair(number[a], number[b], preference, row))
    return ComparedAnswers(tuple(texts), tuple(pairs), prompt.id)


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


def _compare(model: RewardModel, groups: Sequence[ComparedAnswers]) -> tuple[Tensor, Tensor]:
    """Scores of the first and of the second answer of each pair."""
    scores = model.of_groups([group.texts for group in groups])
    first, second = [], []
    start = 0
    for group in groups:
        first += [start + pair.first for pair in group.pairs]
        second += [start + pair.second for pair in group.pairs]
        start += len(group.texts)
    return scores[first], scores[second]


def _columns(groups: Sequence[ComparedAnswers], device: torch.device) -> Iterator[Tensor]:
    """Label, weight, offset and error of each pair."""
    pairs = [pair for group in groups for pair in group.pairs]
    for column in ("p_a", "weight", "offset", "error"):
        yield torch.tensor([getattr(pair, column) for pair in pairs], device=device)


def train_reward(
    model: RewardModel,
    learner: Learner,
    batches: Iterable[Sequence[ComparedAnswers]],
    *,
    smoothing: float = 0.0,
    centring: float = 0.01,
    tie_threshold: float | None = None,
    start: int = 0,
) -> Iterator[RewardStep]:
    """Yields one `RewardStep` per minibatch, with `loss`, `accuracy` and `margin`.

    Args:
        model: trained in place.
        learner: owns the optimiser.
        batches: minibatches of compared answers.
        smoothing: label smoothing of the Bradley-Terry loss.
        centring: eta, the weight of (r_a + r_b)^2.
        tie_threshold: of the Rao-Kupper model, which then takes the place of Bradley-Terry's;
            without, a tie is half a vote for either answer.
        start: number of the first step; not 0 where training is resumed.
    """

    def loss(batch: ComparisonBatch, denominator: float) -> LossOutput:
        score_a, score_b = _compare(model, batch.groups)
        label, weight, offset, error = _columns(batch.groups, score_a.device)
        margin = score_a - score_b
        if tie_threshold is not None:
            likelihood = partial(rao_kupper_loss, threshold=tie_threshold)
        elif error.any():
            likelihood = partial(noisy_label_loss, error=error)
        else:
            likelihood = partial(bradley_terry_loss, smoothing=smoothing, offset=offset)
        preference = likelihood(margin, label, weights=weight, denominator=denominator)
        centre = centring * (weight * (score_a + score_b).square()).sum() / denominator
        metrics = {
            "accuracy": (weight * pairwise_accuracy(margin, label)).sum() / denominator,
            "margin": (weight * margin.detach() * torch.sign(label - 0.5)).sum() / denominator,
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
        a, b = _compare(model, [groups[row] for row in rows])
        remaining = iter((a - b).tolist())
        return [[next(remaining) for _ in groups[row].pairs] for row in rows]

    lengths = ComparisonBatch(groups).row_lengths
    measured = MicroBatches(batch_tokens).values(lengths, read, cores)
    labels = [pair.p_a for group in groups for pair in group.pairs]
    return [margin for row in measured for margin in row], labels


def preference_margins(
    model: RewardModel, preferences: Sequence[Preference], *, cores: Cores | None = None
) -> list[float | None]:
    """r_a - r_b of each preference in order; None where an answer is too long to be scored."""
    groups, _ = encode_comparisons(model, preferences)
    found: list[float | None] = [None] * len(preferences)
    measured, _ = margins(model, groups, cores=cores)
    rows = [pair.row for group in groups for pair in group.pairs]
    for row, margin in zip(rows, measured, strict=True):
        found[row] = margin
    return found
