"""A grid, a goal, and a table of values: Q-learning beside the exact optimum.

    S . . .        start (0, 0), goal (n-1, n-1), walls
    . # # .        a move into a wall or out of the grid stays where it is
    . . # .        entering the goal earns 1 and ends the episode;
    . . . G        every other move earns the step reward, -0.01 by default

Value iteration (Bellman 1957) solves the grid, because its rules are known. Q-learning
(Watkins 1989) finds the same values from moves alone.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import ConfigError
from tutelage.labs.settings import Exploration

__all__ = [
    "MOVES",
    "GridWorld",
    "QTable",
    "greedy_path",
    "optimal_cells",
    "q_learning",
    "value_iteration",
]


MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down, left, as (row, column) steps; an action is an index into it."""

_EQUAL = 1e-9
"""Values closer than this are the same: value iteration stops well below it."""


class GridWorld:
    """The rules of an n x n grid as tables; cells are numbered row by row."""

    def __init__(
        self,
        size: int = 4,
        *,
        walls: Collection[tuple[int, int]] = (),
        step_reward: float = -0.01,
    ) -> None:
        """Lays out the grid.

        Raises:
            ConfigError: the grid is too small, a wall is outside it or on start or goal, or
                walls close off the goal.
        """
        if size < 2:
            raise ConfigError(f"size {size}: a grid needs at least 2 cells a side")
        self.size, self.start, self.goal = size, 0, size * size - 1
        self.walls = frozenset(row * size + column for row, column in walls)
        for row, column in walls:
            inside = 0 <= row < size and 0 <= column < size
            if not inside or row * size + column in (self.start, self.goal):
                raise ConfigError(
                    f"wall {row},{column}: expected a cell of the {size} x {size} grid other than "
                    f"the start 0,0 and the goal {size - 1},{size - 1}"
                )
        cells = range(size * size)
        self.next_cell = np.array([[self._move(c, a) for a in range(4)] for c in cells])
        """`[cells, 4]`: where each action leads."""
        self.rewards = np.where(self.next_cell == self.goal, 1.0, step_reward)
        """`[cells, 4]`: what each action earns."""
        self.reachable = self._reachable()
        """Cells, without the goal, that the start leads to."""
        if not (self.next_cell[self.reachable] == self.goal).any():
            raise ConfigError("the walls close off the goal: remove one of them")

    def _move(self, cell: int, action: int) -> int:
        row, column = divmod(cell, self.size)
        row, column = row + MOVES[action][0], column + MOVES[action][1]
        inside = 0 <= row < self.size and 0 <= column < self.size
        target = row * self.size + column
        return target if inside and target not in self.walls else cell

    def _reachable(self) -> list[int]:
        found, border = {self.start}, [self.start]
        while border:
            ahead = {int(cell) for cell in self.next_cell[border].flat} - found - {self.goal}
            found |= ahead
            border = list(ahead)
        return sorted(found)


def value_iteration(world: GridWorld, *, gamma: float) -> NDArray[np.float64]:
    """The exact action values of the best policy.

        Q*(s, a) = r(s, a) + γ max_b Q*(s', b),   0 after the goal

    Source: Bellman 1957; iterated to a fixed point, which γ < 1 makes unique.

    Returns:
        `[cells, 4]`; the goal's row is 0.
    """
    q = np.zeros((world.size**2, 4))
    while True:
        best = q.max(1)
        best[world.goal] = 0.0
        new = world.rewards + gamma * best[world.next_cell]
        if np.abs(new - q).max() < 1e-14:
            new[world.goal] = 0.0
            return new
        q = new


@dataclass(frozen=True, slots=True)
class QTable:
    """What Q-learning found, and how it got there."""

    values: NDArray[np.float64]
    """`[cells, 4]`: the estimate of Q*."""

    visits: NDArray[np.int64]
    """`[cells, 4]`: how often each action was tried."""

    steps: NDArray[np.int64]
    """Moves in each episode."""

    returns: NDArray[np.float64]
    """Undiscounted reward of each episode."""

    def never_tried(self, world: GridWorld) -> float:
        """Share of the state-action pairs in reach that were not tried once."""
        return float((self.visits[world.reachable] == 0).mean())


def q_learning(
    world: GridWorld,
    *,
    episodes: int = 500,
    alpha: float = 0.1,
    gamma: float = 0.99,
    explore: Exploration = "epsilon-greedy",
    epsilon: float = 0.1,
    temperature: float = 0.1,
    exploring_starts: bool = False,
    longest: int = 1000,
    seed: int = 0,
) -> QTable:
    """Learns action values from moves, one table entry at a time.

        Q(s, a) += α (r + γ max_b Q(s', b) - Q(s, a))

    Source: Watkins 1989; Sutton & Barto 2018, section 6.5. Equal values are chosen among at random.

    Args:
        world: The grid, of which only moves and rewards are seen.
        episodes: Each begins at the start cell and ends at the goal.
        alpha: Share of the error that is corrected at once.
        gamma: Discount per move.
        explore: How actions are chosen: the best one except for a share ε, or in proportion to
            exp(Q / τ).
        epsilon: ε, the share of random actions.
        temperature: τ, in units of reward.
        exploring_starts: Begin each episode in a random cell within reach instead.
        longest: Moves after which an episode is given up.
        seed: Of the random numbers.
    """
    random = np.random.default_rng(seed)
    cells = world.size**2
    # Lists of floats: single entries of arrays are several times slower to read and write.
    q, visits = np.zeros((cells, 4)).tolist(), np.zeros((cells, 4), int).tolist()
    next_cell, rewards = world.next_cell.tolist(), world.rewards.tolist()
    steps, returns = [], []
    for _ in range(episodes):
        cell = int(random.choice(world.reachable)) if exploring_starts else world.start
        total, moves = 0.0, 0
        while cell != world.goal and moves < longest:
            if explore == "boltzmann":
                action = _boltzmann(q[cell], temperature, random.random())
            else:
                action = _epsilon_greedy(q[cell], epsilon, random)
            ahead, reward = next_cell[cell][action], rewards[cell][action]
            best = 0.0 if ahead == world.goal else max(q[ahead])
            q[cell][action] += alpha * (reward + gamma * best - q[cell][action])
            visits[cell][action] += 1
            total, moves, cell = total + reward, moves + 1, ahead
        steps.append(moves)
        returns.append(total)
    return QTable(np.array(q), np.array(visits), np.array(steps), np.array(returns))


def _epsilon_greedy(values: Sequence[float], epsilon: float, random: np.random.Generator) -> int:
    if random.random() < epsilon:
        return int(4 * random.random())
    highest = max(values)
    best = [action for action, value in enumerate(values) if value == highest]
    return best[int(len(best) * random.random())]


def _boltzmann(values: Sequence[float], temperature: float, uniform: float) -> int:
    """The action whose share of exp(Q / τ) the uniform number falls into."""
    highest = max(values)
    weights = np.exp((np.array(values) - highest) / temperature).cumsum()
    return int(np.searchsorted(weights, uniform * weights[-1], side="right").clip(max=3))


def optimal_cells(
    world: GridWorld, q: NDArray[np.float64], exact: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Marks the cells in which the greedy action of `q` is one of the best, `[cells]`.

        Q*(s, argmax_a Q(s, a)) = max_a Q*(s, a)

    Source: by definition of an optimal policy; several actions may be best.
    """
    chosen = exact[np.arange(len(q)), q.argmax(1)]
    return chosen >= exact.max(1) - _EQUAL


def greedy_path(world: GridWorld, q: NDArray[np.float64]) -> list[int]:
    """The cells the greedy policy passes from start to goal, or until it comes back to one."""
    path = [world.start]
    while path[-1] != world.goal:
        cell = int(world.next_cell[path[-1], q[path[-1]].argmax()])
        if cell in path:
            return path
        path.append(cell)
    return path
