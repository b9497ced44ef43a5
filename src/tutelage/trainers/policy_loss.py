"""What every loss reads from the policy, and the penalties that are not a learner's own.

policy.states ──read, some tokens at a time──> log pi, entropy, KL to each anchor
                                                 │        └──────┴──> penalties
                                                 └──> the learner's policy loss
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.algorithms import (
    LossOutput,
    entropy,
    full_kl,
    logprobs_and_entropy,
    ppo_policy_loss,
    token_logprobs,
)
from tutelage.config import ClippedConfig, KLConfig, PolicyGradientConfig
from tutelage.experience import Experience
from tutelage.models import Policy
from tutelage.models.causal import scatter
from tutelage.trainers.round import present

__all__ = ["Anchor", "ClippedPolicyLoss", "PolicyReader", "Reading", "kl_anchors"]


@dataclass(frozen=True)
class Anchor:
    """A policy that the loss holds the trained one near to, by the KL over the vocabulary."""

    name: str
    coefficient: float
    policy: Policy


class Reading(NamedTuple):
    """What the policy thinks of the response tokens of some rows."""

    logprobs: Tensor
    """`[batch, time]`, 0 outside of responses."""
    entropies: Tensor
    """Of each response token, one after the other."""
    divergences: Sequence[Tensor]
    """KL(pi || anchor) of each response token, for each anchor."""


def kl_anchors(policy: Policy, reference: Policy, config: KLConfig) -> list[Anchor]:
    """The anchors that a recipe asks for; call it before the first update."""
    anchors: list[Anchor] = []
    if config.loss_coefficient:
        anchors.append(Anchor("kl/reference", config.loss_coefficient, reference))
    if config.old_policy_coefficient:
        # Copied before the first update, so it stays the policy that sampled.
        old = policy.frozen_copy()
        anchors.append(Anchor("kl/old_policy", config.old_policy_coefficient, old))
    return anchors


class PolicyReader:
    """Reads log-probabilities, entropies and divergences in one pass over the logits."""

    def __init__(
        self, policy: Policy, anchors: Sequence[Anchor], config: PolicyGradientConfig
    ) -> None:
        """`policy` is the one that is trained."""
        self.policy, self.anchors = policy, anchors
        self.entropy_coefficient = config.entropy_coefficient

    def read(self, rows: Experience, states: Tensor | None = None) -> Reading:
        """log pi of each response token, the entropy, and KL(pi || other) for each anchor."""
        if states is None:
            states = self.policy.states(rows)
        with torch.no_grad():
            anchored = [anchor.policy.states(rows) for anchor in self.anchors]

        def read(logits: Tensor, chosen: Tensor, *anchored: Tensor) -> tuple[Tensor, ...]:
            divergences = []
            for anchor, others in zip(self.anchors, anchored, strict=True):
                with torch.no_grad():
                    other_logits = anchor.policy.logits(others)
                divergences.append(full_kl(logits, other_logits))
            if not self.entropy_coefficient:
                return *logprobs_and_entropy(logits, chosen), *divergences
            return token_logprobs(logits, chosen), entropy(logits), *divergences

        chosen = rows.tokens[rows.response_mask]
        found = self.policy.read(read, states, chosen, *anchored)
        return Reading(scatter(found[0], rows.response_mask), found[1], found[2:])

    def penalties(self, reading: Reading, denominator: float | Tensor) -> LossOutput:
        """-c H(pi) + c_ref KL(pi || pi_ref) + c_old KL(pi || pi_old), per token.

        Args:
            denominator: of all tokens, or of each response token.
        """
        mean_entropy = _mean(reading.entropies, denominator)
        total = -self.entropy_coefficient * mean_entropy
        metrics = {"policy/entropy": mean_entropy.detach()}
        for anchor, tokens in zip(self.anchors, reading.divergences, strict=True):
            divergence = _mean(tokens, denominator)
            total = total + anchor.coefficient * divergence
            metrics[anchor.name] = divergence.detach()
        return LossOutput(total, metrics)


def _mean(tokens: Tensor, denominator: float | Tensor) -> Tensor:
    if isinstance(denominator, Tensor):
        return (tokens / denominator).sum()
    return tokens.sum() / max(denominator, 1.0)


class ClippedPolicyLoss:
    """The clipped loss and the penalties of one micro-batch: RLOO and REINFORCE++."""

    def __init__(self, reader: PolicyReader, config: ClippedConfig) -> None:
        """Reads with `reader`; the clips are the configuration's."""
        self.reader, self.config = reader, config

    def __call__(self, rows: Experience, denominator: float) -> LossOutput:
        """Policy loss and penalties per token of the minibatch."""
        reading = self.reader.read(rows)
        policy = ppo_policy_loss(
            reading.logprobs,
            present(rows.old_logprobs),
            present(rows.advantages),
            rows.response_mask,
            clip=self.config.clip,
            clip_high=self.config.clip_high,
            dual_clip=self.config.dual_clip,
            denominator=denominator,
        )
        penalties = self.reader.penalties(reading, denominator)
        return LossOutput(policy.loss + penalties.loss, {**policy.metrics, **penalties.metrics})
