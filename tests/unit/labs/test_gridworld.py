from collections import deque

import numpy as np
import pytest

from tutelage.errors import ConfigError
from tutelage.labs.gridworld import (
    MOVES,
    GridWorld,
    greedy_path,
    optimal_cells,
    q_learning,
    value_iteration,
)
from tutelage.labs.gridworld_lab import measure

WALLS = ((1, 1), (1, 2), (2, 2), (3, 0))


def distances(size: int, walls: tuple) -> dict[tuple[int, int], int]:
    """Moves to the goal by breadth-first search, on coordinates and without the tables."""
    goal = (size - 1, size - 1)
    found, queue = {goal: 0}, deque([goal])
    while queue:
        row, column = queue.popleft()
        for down, right in MOVES:
            cell = (row - down, column - right)
            if min(cell) >= 0 and max(cell) < size and cell not in walls and cell not in found:
                found[cell] = found[row, column] + 1
                queue.append(cell)
    return found


@pytest.mark.parametrize("walls", [(), WALLS])
@pytest.mark.parametrize("step_reward", [-0.01, -0.1])
def test_exact_values_are_those_of_the_shortest_path(walls, step_reward):
    """d moves to the goal are worth Σ_{k<d-1} γ^k r + γ^{d-1}."""
    world = GridWorld(5, walls=walls, step_reward=step_reward)
    best = value_iteration(world, gamma=0.99).max(1)
    for (row, column), moves in distances(5, walls).items():
        powers = 0.99 ** np.arange(max(moves, 1))
        expected = step_reward * powers[:-1].sum() + powers[-1] if moves else 0.0
        assert best[5 * row + column] == pytest.approx(expected, abs=1e-12)


def test_edges_and_walls_stop_a_move():
    world = GridWorld(3, walls=[(0, 1)])
    assert world.next_cell[0].tolist() == [0, 0, 3, 0]
    assert world.next_cell[7].tolist() == [4, 8, 7, 6]
    assert world.rewards[7].tolist() == [-0.01, 1.0, -0.01, -0.01]


def test_cells_behind_walls_are_not_within_reach():
    world = GridWorld(4, walls=[(0, 2), (1, 2), (1, 3)])
    assert world.reachable == [c for c in range(15) if c not in (2, 3, 6, 7)]


@pytest.mark.parametrize(
    ("walls", "message"),
    [
        ([(0, 1), (1, 0)], "close off the goal"),
        ([(0, 0)], "wall 0,0"),
        ([(4, 4)], "wall 4,4"),
        ([(5, 1)], "wall 5,1"),
        ([(-1, 1)], "wall -1,1"),
    ],
)
def test_impossible_grid_is_refused(walls, message):
    with pytest.raises(ConfigError, match=message):
        GridWorld(5, walls=walls)


def test_one_update_by_hand():
    """Two cells a side: right and down both end after two moves; α (r + γ max Q') each."""
    found = q_learning(GridWorld(2), episodes=1, alpha=0.5, epsilon=0.0, seed=3)
    assert found.returns[0] == pytest.approx(1 - 0.01 * (found.steps[0] - 1))
    last = found.values.max()
    assert last == 0.5
    assert found.values[0].max() in (0.0, pytest.approx(-0.005))
    assert found.visits.sum() == found.steps[0]


def test_every_action_tried_often_gives_the_exact_values():
    world = GridWorld(3, walls=[(1, 1)], step_reward=-0.1)
    found = q_learning(world, episodes=3000, epsilon=1.0, alpha=0.1, exploring_starts=True)
    exact = value_iteration(world, gamma=0.99)
    # The grid has no noise, so a constant step size converges; what is left is the tail.
    assert np.abs(found.values - exact)[world.reachable].max() < 1e-3


def test_default_run_is_optimal_from_the_start_on_all_of_twenty_seeds():
    assert measure(GridWorld(), seeds=range(20), gamma=0.99).from_start == 20


def test_exploring_starts_are_optimal_from_every_cell_on_nineteen_of_twenty_seeds():
    world = GridWorld()
    default = measure(world, seeds=range(20), gamma=0.99)
    started = measure(world, seeds=range(20), gamma=0.99, exploring_starts=True)
    assert started.everywhere >= 19
    assert started.never_tried < default.never_tried


def test_boltzmann_exploration_is_greedy_when_cold_and_uniform_when_hot():
    world = GridWorld(4)
    cold = q_learning(world, explore="boltzmann", temperature=1e-3, episodes=300)
    assert cold.steps[-50:].mean() == 6
    hot = q_learning(world, explore="boltzmann", temperature=1e3, episodes=300)
    shares = hot.visits[0] / hot.visits[0].sum()
    # 4 standard errors of a share of 1/4 among more than a thousand choices.
    assert np.abs(shares - 0.25).max() < 4 * np.sqrt(0.1875 / hot.visits[0].sum())


def test_measures_see_a_policy_that_is_wrong_in_one_cell():
    world = GridWorld(3)
    exact = value_iteration(world, gamma=0.9)
    wrong = exact.copy()
    wrong[4] = [1, 0, 0, 0]
    assert np.flatnonzero(~optimal_cells(world, wrong, exact)).tolist() == [4]
    assert optimal_cells(world, exact, exact).all()


def test_greedy_path_ends_where_it_repeats_itself():
    world = GridWorld(3)
    q = np.zeros((9, 4))
    q[:, 1] = 1.0
    assert greedy_path(world, q) == [0, 1, 2]
    assert greedy_path(world, value_iteration(world, gamma=0.9))[-1] == world.goal


def test_same_seed_same_run():
    first, again = (q_learning(GridWorld(4), episodes=20, seed=5) for _ in range(2))
    other = q_learning(GridWorld(4), episodes=20, seed=6)
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)
