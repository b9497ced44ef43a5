"""What can be set in each lab, and to what it is set otherwise.

Apart from the labs, so that asking for their options' help loads neither numpy nor torch.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

__all__ = ["BanditSettings", "CartPoleSettings", "Exploration", "GridSettings"]

Exploration = Literal["epsilon-greedy", "boltzmann"]
"""How Q-learning tries moves that do not look best."""


@dataclass(frozen=True, slots=True)
class GridSettings:
    """Of the grid world."""

    size: int = 4
    walls: Collection[tuple[int, int]] = ()
    step_reward: float = -0.01
    episodes: int = 500
    alpha: float = 0.1
    gamma: float = 0.99
    explore: Exploration = "epsilon-greedy"
    epsilon: float = 0.1
    temperature: float = 0.1
    exploring_starts: bool = False
    seeds: int = 20
    seed: int = 0


@dataclass(frozen=True, slots=True)
class BanditSettings:
    """Of the bandit."""

    pulls: int = 2000
    players: int = 200
    epsilon: float = 0.1
    temperatures: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class CartPoleSettings:
    """Of CartPole."""

    steps: int = 50_000
    seeds: int = 3
    discounts: tuple[float, ...] = (0.5, 0.99, 0.999)
    noise_steps: int = 20_000
    """Training of the policy whose gradients are sampled."""

    noise_batches: int = 100
    episodes: int = 100
    seed: int = 0
