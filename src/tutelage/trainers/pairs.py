"""Pairs of answers: their tokens, what a reference thinks of them, and DPO's loss on them.

    preferences ──tokens──> pairs ──pi_ref, once──> log pi_ref(a), log pi_ref(b)
    pairs ──pi──> log pi(a), log pi(b) ──dpo_loss with p_a──> loss, metrics

Learned from by `tutelage.trainers.dpo`, where others wrote the answers, and by
`tutelage.trainers.online_dpo`, where the policy did.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tutelage.algorithms import LossOutput, dpo_loss
from tutelage.config import DPOConfig
from tutelage.config.training import READ_TOKENS
from tutelage.data.answers import WeightedIds, encode_answers
from tutelage.distributed import Cores
from tutelage.experience import TokenBatch
from tutelage.models import Policy
from tutelage.models.microbatches import MicroBatches
from tutelage.records import Preference

__all__ = [
    "AnswerPair",
    "EncodedPairs",
    "PairBatch",
    "describe_pairs",
    "encode_preferences",
    "measure_pairs",
    "pair_loss",
    "precompute_reference",
]


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to one prompt, each with the tokens of the prompt before it."""

    a: WeightedIds
    b: WeightedIds
    p_a: float
    """Probability that `a` is the better one."""
    reference: tuple[float, float] = (0.0, 0.0)
    """log pi_ref of both; zeros leave the reference out."""

    @property
    def tokens(self) -> int:
        """Read for this pair: two rows of one length, padding included."""
        return 2 * max(len(self.a[0]), len(self.b[0]))


@dataclass(frozen=True)
class PairBatch:
    """Pairs that can be cut up by the learner, the two answers of one never apart."""

    pairs: Sequence[AnswerPair]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    @property
    def row_lengths(self) -> list[int]:
        """Tokens read for each pair."""
        return [pair.tokens for pair in self.pairs]

    @property
    def denominator(self) -> float:
        """Number of pairs."""
        return float(len(self.pairs))

    def select(self, rows: Sequence[int]) -> Self:
        """The given pairs."""
        return type(self)([self.pairs[row] for row in rows])


@dataclass(frozen=True)
class EncodedPairs:
    """Preferences as tokens, and how many are left out."""

    pairs: list[AnswerPair]
    num_too_long: int
    num_equal: int
    """Pairs whose answers are the same tokens: there is nothing to prefer."""


def encode_preferences(
    tokenizer: PreTrainedTokenizerBase, preferences: Sequence[Preference], max_length: int
) -> EncodedPairs:
    """Preferences in the policy's tokens; pairs that cannot be learned from are left out.

    Raises:
        DataError: an answer cannot be encoded; the message names its prompt.
        ModelError: the tokenizer has no chat template.
    """
    both = [
        ((row.comparison.prompt, row.comparison.a), (row.comparison.prompt, row.comparison.b))
        for row in preferences
    ]
    different = list(dict.fromkeys(answer for pair in both for answer in pair))
    known = dict(zip(different, encode_answers(tokenizer, different), strict=True))
    encoded = [
        AnswerPair(known[a], known[b], row.p_a)
        for (a, b), row in zip(both, preferences, strict=True)
    ]
    fitting = [pair for pair in encoded if pair.tokens <= 2 * max_length]
    unequal = [pair for pair in fitting if pair.a != pair.b]
    return EncodedPairs(unequal, len(encoded) - len(fitting), len(fitting) - len(unequal))


def _read(policy: Policy, pairs: Sequence[AnswerPair]) -> tuple[Tensor, Tensor]:
    """[pairs, 2] log pi of whole answers, and their tokens."""
    rows = TokenBatch.collate([row for pair in pairs for row in (pair.a, pair.b)], pad=0)
    rows = rows.to(policy.model.device)
    logprobs = policy.logprobs(rows).sum(1)
    return logprobs.view(-1, 2), rows.response_mask.sum(1).view(-1, 2).to(logprobs.dtype)


@torch.no_grad()
def precompute_reference(
    reference: Policy,
    pairs: Sequence[AnswerPair],
    *,
    batch_tokens: int = READ_TOKENS,
    cores: Cores | None = None,
) -> list[AnswerPair]:
    """The pairs with the reference's log-probabilities.

    Args:
        reference: pi_ref. Before its first step a policy is its own reference.
        pairs: whose answers are read.
        batch_tokens: read at once, padding included; fewer where memory runs out.
        cores: read a batch each.
    """

    def read(rows: Sequence[int]) -> list[list[float]]:
        logprobs, _ = _read(reference, [pairs[row] for row in rows])
        found: list[list[float]] = logprobs.tolist()
        return found

    lengths = [pair.tokens for pair in pairs]
    known = MicroBatches(batch_tokens).values(lengths, read, cores)
    return [replace(pair, reference=(a, b)) for pair, (a, b) in zip(pairs, known, strict=True)]


def pair_loss(
    policy: Policy, pairs: Sequence[AnswerPair], config: DPOConfig, denominator: float
) -> LossOutput:
    """`dpo_loss` of some pairs, over the denominator of the whole optimiser step."""
    logprobs, lengths = _read(policy, pairs)
    output = dpo_loss(
        logprobs,
        logprobs.new_tensor([pair.reference for pair in pairs]),
        logprobs.new_tensor([pair.p_a for pair in pairs]),
        beta=config.beta,
        kind=config.loss,
        smoothing=config.smoothing,
        target_margin=config.target_margin,
        lengths=lengths if config.length_normalise else None,
        denominator=denominator,
    )
    if config.reference == "none":
        # The divergence from a reference that is not there.
        del output.metrics["dpo/kl"]
    return output


def describe_pairs(pairs: Sequence[AnswerPair], rows: Sequence[int]) -> list[dict[str, Any]]:
    """The given pairs as JSON, for a person who looks for what is wrong with them."""
    return [{"row": row, **asdict(pairs[row])} for row in rows]


@torch.no_grad()
def measure_pairs(
    policy: Policy,
    pairs: Sequence[AnswerPair],
    config: DPOConfig,
    *,
    batch_tokens: int = READ_TOKENS,
    cores: Cores | None = None,
) -> dict[str, float]:
    """Loss and `dpo/` metrics over held-out pairs, as means; empty without any.

    Args:
        policy: judged.
        pairs: with the reference's log-probabilities.
        config: the loss.
        batch_tokens: read at once, padding included; fewer where memory runs out.
        cores: read a batch each.
    """

    def read(rows: Sequence[int]) -> dict[str, float]:
        output = pair_loss(policy, [pairs[row] for row in rows], config, len(pairs))
        found = {"loss": output.loss, **output.metrics}
        return {name: float(value) for name, value in found.items()}

    lengths = [pair.tokens for pair in pairs]
    parts = [part for _, part in MicroBatches(batch_tokens).read(lengths, read, cores)]
    return {name: sum(part[name] for part in parts) for name in (parts[0] if parts else ())}
