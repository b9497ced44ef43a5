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
    gae,
    kl_estimate,
    loss_denominator,
    masked_whiten,
    ppo_policy_loss,
    ppo_value_loss,
    shape_rewards,
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
