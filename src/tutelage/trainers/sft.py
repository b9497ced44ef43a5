"""Supervised fine-tuning, and pre-training as the same thing with other weights.

    L = - sum_t w_t log pi(token_t | tokens before t) / sum_t w_t

The weights are 1 on what the assistant says (its end-of-turn token included) and 0 on what it
reads; pre-training weights every token.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tutelage.algorithms import LossOutput, token_logprobs
from tutelage.config.training import READ_TOKENS
from tutelage.distributed import Cores
from tutelage.experience import TokenBatch
from tutelage.models import Policy
from tutelage.models.microbatches import MicroBatches
from tutelage.trainers.learner import Learner

__all__ = ["SFTStep", "WeightedSequence", "imitation_loss", "perplexity", "sft"]

WeightedSequence = tuple[Sequence[int], Sequence[float]]
"""Token ids and the weight of each in the loss."""


@dataclass(frozen=True)
class SFTStep:
    """One optimiser step."""

    index: int
    tokens: int
    """Tokens read."""
    metrics: Mapping[str, float]


def imitation_loss(policy: Policy, rows: TokenBatch, denominator: float) -> LossOutput:
    """Weighted negative log-likelihood over the denominator of the whole optimiser step.

    A step in which nothing is imitated has loss 0.
    """
    denominator = denominator or 1.0
    mask = rows.response_mask
    weights = rows.weights[mask]
    picked, correct = policy.read(_imitated, policy.states(rows), rows.tokens[mask])
    loss = -(weights * picked).sum() / denominator
    return LossOutput(loss, {"accuracy": (weights * correct).sum() / denominator})


def _imitated(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each token, and whether it is the most likely one."""
    picked = token_logprobs(logits, chosen)
    return picked, (logits.detach().argmax(-1) == chosen).float()


def sft(
    policy: Policy,
    learner: Learner,
    batches: Iterable[Sequence[WeightedSequence]],
    *,
    pad: int,
    start: int = 0,
) -> Iterator[SFTStep]:
    """Yields one `SFTStep` per minibatch, with `loss`, `accuracy` and the optimiser's figures.

    Args:
        policy: trained in place.
        learner: owns the optimiser.
        batches: minibatches of token ids with their weights.
        pad: token id behind shorter sequences.
        start: number of the first step; not 0 where training is resumed.
    """

    def loss(rows: TokenBatch, denominator: float) -> LossOutput:
        return imitation_loss(policy, rows, denominator)

    policy.model.train()
    for index, rows in enumerate(batches, start):
        batch = TokenBatch.collate(rows, pad=pad).to(policy.model.device)
        metrics = learner.step(loss, batch, describe=partial(_describe, rows))
        yield SFTStep(index, sum(batch.row_lengths), metrics)


def _describe(sequences: Sequence[WeightedSequence], rows: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"row": row, "tokens": list(sequences[row][0]), "weights": list(sequences[row][1])}
        for row in rows
    ]


@torch.no_grad()
def perplexity(
    policy: Policy,
    sequences: Sequence[WeightedSequence],
    *,
    pad: int,
    batch_tokens: int = READ_TOKENS,
    cores: Cores | None = None,
) -> tuple[float, float]:
    """Loss per weighted token and accuracy over held-out sequences.

    Args:
        policy: judged.
        sequences: token ids with their weights.
        pad: token id behind shorter sequences.
        batch_tokens: read at once, padding included; fewer where memory runs out.
        cores: read a batch each.
    """
    weight = sum(float(w) for _, weights in sequences for w in weights[1:])

    def read(rows: Sequence[int]) -> tuple[float, float]:
        batch = TokenBatch.collate([sequences[row] for row in rows], pad=pad)
        output = imitation_loss(policy, batch.to(policy.model.device), max(weight, 1e-9))
        return float(output.loss), float(output.metrics["accuracy"])

    lengths = [len(ids) for ids, _ in sequences]
    parts = [part for _, part in MicroBatches(batch_tokens).read(lengths, read, cores)]
    return sum(loss for loss, _ in parts), sum(accuracy for _, accuracy in parts)
