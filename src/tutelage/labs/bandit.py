"""Ten arms whose payments are unknown: how much to explore, and what a temperature is.

    true mean of each arm ~ N(0, 1)         payment of a pull ~ N(mean, 1)

A player keeps the average payment of each arm, and chooses by one of two rules:

    epsilon-greedy   the best average, except for a share ε of pulls at random
    softmax          in proportion to exp(average / τ)

Softmax over averages is what a language model does over logits. τ is the sampling temperature.

Source: the ten-armed testbed of Sutton & Barto 2018, section 2.3; softmax as in section 2.8.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ARMS", "EpsilonGreedy", "Pulls", "Rule", "Softmax", "play"]

ARMS = 10


@dataclass(frozen=True, slots=True)
class EpsilonGreedy:
    """The best arm so far, except for a share ε of pulls that are uniformly random."""

    epsilon: float

    def probabilities(self, averages: NDArray[np.float64]) -> NDArray[np.float64]:
        """`[players, arms]`: the rest of 1 is shared by the arms with the highest average."""
        best = averages == averages.max(-1, keepdims=True)
        greedy = best / best.sum(-1, keepdims=True)
        return self.epsilon / averages.shape[-1] + (1 - self.epsilon) * greedy


@dataclass(frozen=True, slots=True)
class Softmax:
    """Every arm, in proportion to exp(average / τ).

    This is the distribution that maximises E[average] + τ · entropy: τ is the price paid for
    being predictable, as β is the price of leaving the reference in RLHF.
    """

    temperature: float

    def probabilities(self, averages: NDArray[np.float64]) -> NDArray[np.float64]:
        """`[players, arms]`."""
        weights = np.exp((averages - averages.max(-1, keepdims=True)) / self.temperature)
        return weights / weights.sum(-1, keepdims=True)


Rule = EpsilonGreedy | Softmax


@dataclass(frozen=True, slots=True)
class Pulls:
    """What many players of one rule did, each with arms of their own."""

    rewards: NDArray[np.float64]
    """`[players, pulls]`: the true mean of the arm that was pulled, free of a payment's noise."""

    ranks: NDArray[np.int64]
    """`[players, pulls]`: 0 where the truly best arm was pulled, 9 where the worst."""

    best: NDArray[np.float64]
    """`[players]`: the true mean of the best arm."""

    def final_distribution(self, last: int) -> NDArray[np.float64]:
        """Share of the last pulls by rank of the arm, over all players, `[arms]`."""
        counts = np.bincount(self.ranks[:, -last:].ravel(), minlength=ARMS)
        return counts / counts.sum()


def play(rule: Rule, *, pulls: int = 2000, players: int = 200, seed: int = 0) -> Pulls:
    """Lets players pull, each on a bandit of their own; averages start at 0.

        Q_{n+1} = Q_n + (payment - Q_n) / n

    Source: Sutton & Barto 2018, section 2.4. Two rules with the same seed meet the same arms.

    Args:
        rule: How a player chooses.
        pulls: Of each player.
        players: Whose mean and spread are shown.
        seed: Of arms, payments and choices.
    """
    means = np.random.default_rng([seed, 0]).standard_normal((players, ARMS))
    random = np.random.default_rng([seed, 1])
    order = np.argsort(np.argsort(-means, axis=1), axis=1)
    averages, counts = np.zeros((players, ARMS)), np.zeros((players, ARMS))
    rewards, ranks = np.empty((players, pulls)), np.empty((players, pulls), int)
    rows = np.arange(players)
    for pull in range(pulls):
        cumulative = rule.probabilities(averages).cumsum(1)
        # The last entry can miss 1 by a rounding error, and a draw may lie between.
        draw = random.random((players, 1)) * cumulative[:, -1:]
        arm = (cumulative <= draw).sum(1)
        payment = means[rows, arm] + random.standard_normal(players)
        counts[rows, arm] += 1
        averages[rows, arm] += (payment - averages[rows, arm]) / counts[rows, arm]
        rewards[:, pull], ranks[:, pull] = means[rows, arm], order[rows, arm]
    return Pulls(rewards, ranks, means.max(1))
