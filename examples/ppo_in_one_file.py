"""RLHF in one file: PPO teaches a tiny language model to count.

A prompt is a digit; a good completion counts on to 9 and stops. The model never sees one.
It samples, is told a score for the whole completion, and has to find out which tokens
earned it, while a penalty holds it to the reference it started from.

    prompt 6     completion 7 8 9 stop     score 1         (7 8 3: score 1/2)

    sample ──> score ──> rewards, with KL ──> advantages ──> clipped updates
       ^                                                          │
       └────────────────────── new weights ───────────────────────┘

Run it, on a CPU, in a few seconds:  python examples/ppo_in_one_file.py
"""

import copy

import torch
from torch import Tensor, nn

from tutelage.algorithms import (
    FixedKL,
    gae,
    kl_estimate,
    masked_whiten,
    ppo_policy_loss,
    ppo_value_loss,
    shape_rewards,
    token_logprobs,
    zero_outside,
)

STOP = 10  # the successor of 9; digits are tokens 0 to 9
LONGEST = 12
STEPS, BATCH, EPOCHS, MINIBATCH = 32, 256, 2, 64
GAMMA, LAM, CLIP, VALUE_COEF, BETA = 1.0, 0.95, 0.2, 0.5, 0.01


class Reader(nn.Module):
    """Reads tokens from left to right and says something after each: logits, or a value."""

    def __init__(self, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(STOP + 1, width)
        self.read = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """What is said after each token but the last speaks of the token that follows."""
        hidden, _ = self.read(self.embed(tokens[:, :-1]))
        return nn.functional.pad(self.head(hidden), (0, 0, 1, 0))


def logprobs(policy: Reader, tokens: Tensor) -> Tensor:
    """Position t of this and of every tensor below speaks of tokens[:, t]; 0 is the prompt."""
    return token_logprobs(policy(tokens), tokens)


def values(critic: Reader, tokens: Tensor) -> Tensor:
    """What the critic expects to be scored, before each token is chosen."""
    return critic(tokens).squeeze(-1)


@torch.no_grad()
def sample(policy: Reader, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Completions, and the mask of what the policy wrote; padding looks like STOP."""
    tokens, mask = prompts, torch.zeros_like(prompts, dtype=torch.bool)
    alive = ~mask
    for _ in range(LONGEST):
        logits = policy(nn.functional.pad(tokens, (0, 1)))[:, -1]
        drawn = torch.where(alive, torch.multinomial(logits.softmax(-1), 1), STOP)
        tokens, mask = torch.cat([tokens, drawn], 1), torch.cat([mask, alive], 1)
        alive = alive & (drawn != STOP)
    return tokens, mask


def score(tokens: Tensor, mask: Tensor) -> Tensor:
    """Share of the right completion that was written before the first mistake."""
    expected = tokens[:, :1] + torch.arange(tokens.shape[1])
    right = ((tokens == expected) & mask)[:, 1:]
    return right.cumprod(1).sum(1) / (STOP - tokens[:, 0])


def show(policy: Reader, title: str) -> None:
    """Prints a completion of every other digit."""
    print(f"\n{title}")
    tokens, mask = sample(policy, torch.arange(0, 10, 2).unsqueeze(1))
    for row, written, points in zip(tokens, mask, score(tokens, mask), strict=True):
        words = ["stop" if token == STOP else str(token) for token in row[written].tolist()]
        print(f"  {int(row[0])} -> {' '.join(words):<30} score {points:.2f}")


def main() -> None:
    """The procedure of Ziegler et al. 2019 (arXiv:1909.08593), in order."""
    torch.manual_seed(0)
    policy, critic = Reader(outputs=STOP + 1), Reader(outputs=1)
    reference = copy.deepcopy(policy).requires_grad_(False)
    optimiser = torch.optim.Adam([*policy.parameters(), *critic.parameters()], 8e-3, eps=1e-5)
    kl_coef = FixedKL(BETA)
    show(policy, "before")

    for step in range(STEPS):
        # 1. Sample y ~ pi_old(. | x), and score each completion as a whole: R(x, y).
        tokens, mask = sample(policy, torch.randint(0, 10, (BATCH, 1)))
        scores = score(tokens, mask)

        # 2. What pi_old, pi_ref and V thought of every token.
        with torch.no_grad():
            old_logprobs, ref_logprobs = logprobs(policy, tokens), logprobs(reference, tokens)
            old_values = values(critic, tokens)

        # 3. r_t = -beta KL_t + [t = T] R; advantages by GAE, whitened over the batch.
        kl = kl_estimate(old_logprobs, ref_logprobs)
        rewards = shape_rewards(scores, kl, mask, kl_coef.value)
        advantages, returns = gae(rewards, old_values, mask, gamma=GAMMA, lam=LAM)
        advantages = masked_whiten(advantages, mask)

        # 4. A few epochs of clipped updates on what was sampled.
        for rows in (r for _ in range(EPOCHS) for r in torch.randperm(BATCH).split(MINIBATCH)):
            x, m = tokens[rows], mask[rows]
            new, now = logprobs(policy, x), values(critic, x)
            pi = ppo_policy_loss(new, old_logprobs[rows], advantages[rows], m, clip=CLIP)
            v = ppo_value_loss(now, old_values[rows], returns[rows], m, clip=None)
            optimiser.zero_grad()
            (pi.loss + VALUE_COEF * v.loss).backward()
            optimiser.step()

        # 5. How far the policy has moved, in nats per completion; AdaptiveKL would react to it.
        sequence_kl = zero_outside(kl, mask).sum(1).mean().item()
        kl_coef.update(sequence_kl, BATCH)
        print(f"step {step:3d}   reward {scores.mean():.3f}   KL {sequence_kl:6.3f}")

    show(policy, "after")


if __name__ == "__main__":
    main()
