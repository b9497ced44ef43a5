"""PPO with a KL penalty reaches the optimum over whole sequences, credit assignment included.

Two content tokens and a stop token, at most three tokens: fifteen sequences, all enumerated.

    stop     a stop   b stop     aa stop  ab stop  ba stop  bb stop     aaa  aab ... bbb

Policy and critic are tables over the seven prefixes, the score comes at the end, and the optimum
π*(y) ∝ π_ref(y) exp(r(y) / β) is a softmax over fifteen numbers. Each mutation below
is a bug that trains smoothly, and ends elsewhere.
"""

from itertools import product

import pytest
import torch
from torch import Tensor

from tutelage.algorithms import (
    LossOutput,
    MovingBaseline,
    gae,
    group_advantages,
    kl_estimate,
    leave_one_out,
    loss_denominator,
    masked_mean,
    masked_whiten,
    normalised_returns,
    ppo_policy_loss,
    ppo_value_loss,
    reinforce_loss,
    reward_to_go,
    shape_rewards,
    subtract_baseline,
    token_logprobs,
)

BETA, STOP, LONGEST = 0.5, 2, 3
PREFIXES = [prefix for n in range(LONGEST) for prefix in product((0, 1), repeat=n)]
SEQUENCES = [(*prefix, STOP) for prefix in PREFIXES] + list(product((0, 1), repeat=LONGEST))


def table() -> tuple[Tensor, Tensor, Tensor]:
    """For every sequence and position: the prefix it stands on, the token, whether written."""
    states, tokens = torch.zeros(2, len(SEQUENCES), LONGEST, dtype=torch.long)
    written = torch.zeros(len(SEQUENCES), LONGEST, dtype=torch.bool)
    for i, sequence in enumerate(SEQUENCES):
        for t, token in enumerate(sequence):
            states[i, t] = PREFIXES.index(sequence[:t])
            tokens[i, t], written[i, t] = token, True
    return states, tokens, written


STATES, TOKENS, WRITTEN = table()
_RANDOM = torch.Generator().manual_seed(1)
REFERENCE = 0.5 * torch.randn(len(PREFIXES), 3, generator=_RANDOM, dtype=torch.float64)
SCORES = torch.randn(len(SEQUENCES), generator=_RANDOM, dtype=torch.float64)


def sequence_logprobs(logits: Tensor) -> Tensor:
    return torch.where(WRITTEN, token_logprobs(logits[STATES], TOKENS), 0).sum(1)


OPTIMUM = (sequence_logprobs(REFERENCE) + SCORES / BETA).softmax(0)


def total_variation(logits: Tensor) -> float:
    return 0.5 * (sequence_logprobs(logits).exp() - OPTIMUM).abs().sum().item()


def train(
    *,
    rollouts: int,
    size: int,
    seed: int = 0,
    beta: float = BETA,
    kind: str = "k1",
    gamma: float = 1.0,
    lam: float = 0.95,
    whiten: bool = True,
    aggregation: str = "token_mean",
    skip_first_token: bool = False,
    lr: float = 0.03,
) -> float:
    """Total variation to the optimum after PPO; two epochs of four minibatches a rollout."""
    random = torch.Generator().manual_seed(seed)
    logits = REFERENCE.clone().requires_grad_()
    critic = torch.zeros(len(PREFIXES), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits, critic], lr=lr, eps=1e-5)
    anneal = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0, rollouts * 2 * 4)
    for _ in range(rollouts):
        policy = logits.detach()
        drawn = torch.multinomial(sequence_logprobs(policy).exp(), size, True, generator=random)
        states, tokens, mask = STATES[drawn], TOKENS[drawn], WRITTEN[drawn]
        old = token_logprobs(policy[states], tokens)
        kl = kl_estimate(old, token_logprobs(REFERENCE[states], tokens), kind)
        rewards = shape_rewards(SCORES[drawn], kl, mask, beta)
        values = critic.detach()[states]
        advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
        if skip_first_token:
            mask = mask & (torch.arange(LONGEST) > 0)
        if whiten:
            advantages = masked_whiten(advantages, mask)
        for _ in range(2):
            for rows in torch.randperm(size, generator=random).split(size // 4):
                here, targets = mask[rows], (old[rows], advantages[rows])
                new = token_logprobs(logits[states[rows]], tokens[rows])
                pi = ppo_policy_loss(
                    new, *targets, here, clip=0.2, denominator=loss_denominator(here, aggregation)
                )
                now = critic[states[rows]]
                v = ppo_value_loss(now, values[rows], returns[rows], here, clip=None)
                optimiser.zero_grad()
                (pi.loss + 0.5 * v.loss).backward()
                optimiser.step()
                anneal.step()
    end = total_variation(logits.detach())
    print(f"total variation {end:.5f}")
    return end


class Learner:
    """Advantages and loss of a learner without a critic; as many steps a rollout as it allows."""

    epochs, cuts = 2, 4

    def advantages(self, scores: Tensor, kl: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError

    def loss(
        self, new: Tensor, old: Tensor, reference: Tensor, advantages: Tensor, mask: Tensor
    ) -> LossOutput:
        return ppo_policy_loss(new, old, advantages, mask, clip=0.2)


class RLOO(Learner):
    def advantages(self, scores: Tensor, kl: Tensor, mask: Tensor) -> Tensor:
        rewards = scores - BETA * torch.where(mask, kl, 0).sum(1)
        return leave_one_out(rewards.view(-1, 4)).view(-1, 1) * mask


class ReinforcePP(Learner):
    def advantages(self, scores: Tensor, kl: Tensor, mask: Tensor) -> Tensor:
        return normalised_returns(shape_rewards(scores, kl, mask, BETA), mask)


class Reinforce(Learner):
    epochs, cuts = 1, 1

    def __init__(self, baseline: str) -> None:
        self.baseline, self.moving = baseline, MovingBaseline()

    def advantages(self, scores: Tensor, kl: Tensor, mask: Tensor) -> Tensor:
        returns = reward_to_go(shape_rewards(scores, kl, mask, BETA), mask)
        now = {"none": 0.0, "batch": masked_mean(returns, mask), "moving": self.moving.value}
        self.moving.update(returns, mask)
        return subtract_baseline(returns, mask, now[self.baseline])

    def loss(
        self, new: Tensor, old: Tensor, reference: Tensor, advantages: Tensor, mask: Tensor
    ) -> LossOutput:
        return reinforce_loss(new, old, advantages, mask)


class GRPO(Learner):
    """Without the std, and with a penalty as much smaller as its advantages are."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def advantages(self, scores: Tensor, kl: Tensor, mask: Tensor) -> Tensor:
        return group_advantages(scores.view(-1, 4), scale=False).view(-1, 1) * mask

    def loss(
        self, new: Tensor, old: Tensor, reference: Tensor, advantages: Tensor, mask: Tensor
    ) -> LossOutput:
        policy = ppo_policy_loss(new, old, advantages, mask, clip=0.2)
        divergence = masked_mean(kl_estimate(new, reference, self.kind), mask)
        return LossOutput(policy.loss + 3 / 4 * BETA * divergence, policy.metrics)


def train_learner(
    learner: Learner, *, steps: int, size: int, seed: int = 0, lr: float = 0.03
) -> float:
    """Total variation to the optimum after that many optimiser steps."""
    random = torch.Generator().manual_seed(seed)
    logits = REFERENCE.clone().requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=lr, eps=1e-5)
    anneal = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0, steps)
    for _ in range(steps // (learner.epochs * learner.cuts)):
        policy = logits.detach()
        drawn = torch.multinomial(sequence_logprobs(policy).exp(), size, True, generator=random)
        states, tokens, mask = STATES[drawn], TOKENS[drawn], WRITTEN[drawn]
        old = token_logprobs(policy[states], tokens)
        reference = token_logprobs(REFERENCE[states], tokens)
        advantages = learner.advantages(SCORES[drawn], kl_estimate(old, reference), mask)
        for _ in range(learner.epochs):
            for rows in torch.randperm(size, generator=random).split(size // learner.cuts):
                new = token_logprobs(logits[states[rows]], tokens[rows])
                loss = learner.loss(new, old[rows], reference[rows], advantages[rows], mask[rows])
                optimiser.zero_grad()
                loss.loss.backward()
                optimiser.step()
                anneal.step()
    end = total_variation(logits.detach())
    print(f"{type(learner).__name__}: total variation {end:.5f}")
    return end


REACHING = {
    "rloo": RLOO,
    "reinforce": lambda: Reinforce("moving"),
    "reinforce, mean of the round": lambda: Reinforce("batch"),
    "reinforce, no baseline": lambda: Reinforce("none"),
    "reinforce++": ReinforcePP,
}


@pytest.mark.parametrize("learner", ["rloo", "reinforce", "reinforce++"])
def test_learner_without_a_critic_reaches_the_optimum(learner):
    assert train_learner(REACHING[learner](), steps=480, size=2048) <= 0.01


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_a_divergence_in_the_loss_of_tokens_ends_elsewhere(kind):
    """What a token does to the divergence of later ones has no gradient there."""
    assert train_learner(GRPO(kind), steps=480, size=1024) > 0.02


@pytest.mark.learn
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("learner", REACHING)
def test_full_run_without_a_critic_reaches_the_optimum(seed, learner):
    assert train_learner(REACHING[learner](), steps=1200, size=4096, seed=seed) <= 0.005


@pytest.mark.learn
@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_full_run_with_the_divergence_in_the_loss_ends_elsewhere(kind):
    assert train_learner(GRPO(kind), steps=1200, size=4096) > 0.02


BROKEN = [
    {"gamma": 0.9},
    {"skip_first_token": True},
    {"kind": "k3"},
    {"kind": "k2"},
    {"beta": 0.0},
]


def test_all_sequences_are_enumerated():
    assert len(SEQUENCES) == len(set(SEQUENCES)) == 15
    assert sequence_logprobs(REFERENCE).exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert total_variation(REFERENCE) > 0.3


def test_ppo_reaches_the_optimum():
    assert train(rollouts=60, size=2048) <= 0.005


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_a_broken_variant_ends_elsewhere(broken):
    assert train(rollouts=60, size=1024, **broken) > 0.02


@pytest.mark.learn
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"whiten": False},
        {"lam": 1.0},
        {"aggregation": "sequence_mean"},
        {"aggregation": "sequence_sum"},
    ],
    ids=str,
)
def test_full_run_of_every_right_variant_reaches_the_optimum(seed, variant):
    assert train(rollouts=150, size=4096, seed=seed, **variant) <= 0.005


@pytest.mark.learn
@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_full_run_of_a_broken_variant_ends_elsewhere(broken):
    assert train(rollouts=150, size=4096, **broken) > 0.02
