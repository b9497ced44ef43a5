"""Episodes of an environment in the layout of completions: `[batch, time]` and a mask.

    env 0   o o o o o x o o          row 0   o o o o o     ended: nothing follows, value 0
    env 1   o o o o o o o o    ──>   row 1   o o o         cut: worth V of what comes next
                                     row 2   o o o o o o o o   cut

A row is what one environment did from one state to the end of its episode, or to the end of the
window. A language model's completion is such a row: its steps are tokens, and a truncated
completion is one that was cut.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Act", "Collector", "Environment", "Rollout"]

Act = Callable[[NDArray], Sequence[int]]
"""Chooses an action for each row of observations."""


class Environment(Protocol):
    """What Gymnasium calls an environment, as far as it is used here."""

    def reset(self, *, seed: int | None = None) -> tuple[Any, Any]:
        """Begins an episode; returns its first observation and a note."""
        ...

    def step(self, action: int) -> tuple[Any, Any, bool, bool, Any]:
        """Returns observation, reward, whether the episode ended, whether it was cut, a note."""
        ...


@dataclass(frozen=True, slots=True)
class Rollout:
    """Rows of steps, padded to the longest; a masked position holds 0."""

    observations: Float[Tensor, "batch time features"]
    actions: Int[Tensor, "batch time"]
    rewards: Float[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"]
    next_observations: Float[Tensor, "batch features"]
    """What was seen after the row's last step."""

    ended: Bool[Tensor, " batch"]
    """Whether the environment ended the episode there; nothing can be earned after it."""


@dataclass(slots=True)
class _Row:
    observations: list[NDArray] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    next_observation: NDArray = field(default_factory=lambda: np.zeros(0, np.float32))
    ended: bool = False


class Collector:
    """Environments side by side, and the rewards of the episodes they finished."""

    def __init__(self, environments: Sequence[Environment], *, seed: int) -> None:
        """Begins an episode in each environment; the i-th one is seeded with `seed + i`."""
        self.environments = environments
        self.steps = 0
        """Steps taken so far, over all environments."""
        self.finished: list[tuple[int, float]] = []
        """(steps so far, sum of rewards) of every finished episode."""
        self._observations = [
            np.asarray(environment.reset(seed=seed + index)[0], np.float32)
            for index, environment in enumerate(environments)
        ]
        self._earned = [0.0] * len(environments)

    def window(self, act: Act, length: int) -> Rollout:
        """The next `length` steps of each environment; episodes go on in the next window."""
        closed: list[_Row] = []
        rows = [_Row() for _ in self.environments]
        for _ in range(length):
            for index, action in enumerate(act(np.stack(self._observations))):
                if self._step(index, action, rows[index]):
                    closed.append(rows[index])
                    rows[index] = _Row()
        return _padded([row for row in [*closed, *rows] if row.actions])

    def episodes(self, act: Act) -> Rollout:
        """The rest of the episode in each environment; each then stands at a new beginning."""
        rows = [_Row() for _ in self.environments]
        alive = list(range(len(rows)))
        while alive:
            actions = act(np.stack([self._observations[index] for index in alive]))
            alive = [
                index
                for index, action in zip(alive, actions, strict=True)
                if not self._step(index, action, rows[index])
            ]
        return _padded(rows)

    def _step(self, index: int, action: int, row: _Row) -> bool:
        """Takes a step, writes it into the row; returns whether the episode is over."""
        environment = self.environments[index]
        row.observations.append(self._observations[index])
        row.actions.append(int(action))
        observation, reward, ended, cut, _ = environment.step(int(action))
        row.rewards.append(float(reward))
        row.next_observation = np.asarray(observation, np.float32)
        row.ended = bool(ended)
        self.steps += 1
        self._earned[index] += float(reward)
        over = bool(ended or cut)
        if over:
            self.finished.append((self.steps, self._earned[index]))
            self._earned[index] = 0.0
            observation, _ = environment.reset()
        self._observations[index] = np.asarray(observation, np.float32)
        return over


def _padded(rows: Sequence[_Row]) -> Rollout:
    longest = max(len(row.actions) for row in rows)
    features = rows[0].observations[0].shape
    observations = np.zeros((len(rows), longest, *features), np.float32)
    actions = np.zeros((len(rows), longest), np.int64)
    rewards = np.zeros((len(rows), longest), np.float32)
    mask = np.zeros((len(rows), longest), bool)
    for index, row in enumerate(rows):
        written = len(row.actions)
        observations[index, :written] = row.observations
        actions[index, :written] = row.actions
        rewards[index, :written] = row.rewards
        mask[index, :written] = True
    return Rollout(
        observations=torch.from_numpy(observations),
        actions=torch.from_numpy(actions),
        rewards=torch.from_numpy(rewards),
        mask=torch.from_numpy(mask),
        next_observations=torch.from_numpy(np.stack([row.next_observation for row in rows])),
        ended=torch.tensor([row.ended for row in rows]),
    )
