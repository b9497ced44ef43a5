"""The exercises of the grid world: one run looked at closely, then twenty seeds per setting."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.labs.gridworld import (
    MOVES,
    GridWorld,
    QTable,
    greedy_path,
    optimal_cells,
    q_learning,
    value_iteration,
)
from tutelage.labs.plots import COLOURS, INK, MUTED, band, heading, panels, running_mean
from tutelage.labs.result import LabResult, exercise_table
from tutelage.labs.settings import GridSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["Measures", "gridworld_lab", "measure"]

_RARE = 20
_LAST = 100
"""Episodes at the end of a run whose length is reported."""


@dataclass(frozen=True, slots=True)
class Measures:
    """One setting over several seeds."""

    from_start: int
    """Seeds whose greedy path from the start is a shortest one."""

    everywhere: int
    """Seeds whose greedy action is optimal in every cell within reach."""

    cells: float
    """Mean share of the cells within reach where it is."""

    never_tried: float
    """Mean share of state-action pairs that were not tried once."""

    rarely_tried: float
    """The same of those tried fewer than 20 times: at α = 0.1 a tenth of the error is then left."""

    last_steps: float
    """Mean length of the last episodes, exploration included."""

    steps: "NDArray[np.int64]"
    """`[seeds, episodes]`."""


def measure(world: GridWorld, *, seeds: range, gamma: float, **learning: Any) -> Measures:
    """Runs Q-learning once per seed and compares each result with the exact optimum."""
    exact = value_iteration(world, gamma=gamma)
    shortest = len(greedy_path(world, exact))
    runs = [q_learning(world, gamma=gamma, seed=seed, **learning) for seed in seeds]
    right = [optimal_cells(world, run.values, exact)[world.reachable] for run in runs]
    paths = [greedy_path(world, run.values) for run in runs]
    arrived = [path[-1] == world.goal and len(path) == shortest for path in paths]
    return Measures(
        from_start=sum(arrived),
        everywhere=sum(bool(cells.all()) for cells in right),
        cells=float(np.mean(right)),
        never_tried=float(np.mean([run.never_tried(world) for run in runs])),
        rarely_tried=float(np.mean([run.visits[world.reachable] < _RARE for run in runs])),
        last_steps=float(np.mean([run.steps[-_LAST:].mean() for run in runs])),
        steps=np.array([run.steps for run in runs]),
    )


def gridworld_lab(settings: GridSettings) -> LabResult:
    """Runs the exercises.

    Raises:
        ConfigError: the grid is not possible.
        MissingExtraError: matplotlib is not installed.
    """
    world = _world(settings, settings.step_reward)
    exact = value_iteration(world, gamma=settings.gamma)
    asked: dict[str, Any] = {
        "episodes": settings.episodes,
        "alpha": settings.alpha,
        "explore": settings.explore,
        "epsilon": settings.epsilon,
        "temperature": settings.temperature,
        "exploring_starts": settings.exploring_starts,
    }
    run = q_learning(world, gamma=settings.gamma, seed=settings.seed, **asked)
    exercises: dict[str, tuple[float, dict[str, Any]]] = {
        "as asked": (settings.step_reward, {}),
        "epsilon-greedy, ε 0.3": (
            settings.step_reward,
            {"explore": "epsilon-greedy", "epsilon": 0.3},
        ),
        "Boltzmann, τ 0.1": (settings.step_reward, {"explore": "boltzmann", "temperature": 0.1}),
        "Boltzmann, τ 0.01": (settings.step_reward, {"explore": "boltzmann", "temperature": 0.01}),
        "step reward -0.1": (-0.1, {}),
        "exploring starts": (settings.step_reward, {"exploring_starts": True}),
        "exploring starts, ε 1": (
            settings.step_reward,
            {"exploring_starts": True, "explore": "epsilon-greedy", "epsilon": 1.0},
        ),
    }
    seeds = range(settings.seed, settings.seed + settings.seeds)
    found = {
        name: measure(
            _world(settings, reward), seeds=seeds, gamma=settings.gamma, **(asked | change)
        )
        for name, (reward, change) in exercises.items()
    }
    return LabResult(
        summary={
            "lab": "gridworld",
            "settings": {**asked, "size": settings.size, "gamma": settings.gamma}
            | {"step_reward": settings.step_reward, "walls": sorted(settings.walls)}
            | {"seed": settings.seed, "seeds": settings.seeds},
            "shortest_path": len(greedy_path(world, exact)) - 1,
            "exercises": {name: _numbers(measures) for name, measures in found.items()},
        },
        tables=[_table(found, settings.seeds)],
        figures={
            "policy": _policy_figure(world, run, exact),
            "learning": _learning_figure(found, len(greedy_path(world, exact)) - 1),
        },
    )


def _world(settings: GridSettings, step_reward: float) -> GridWorld:
    return GridWorld(settings.size, walls=settings.walls, step_reward=step_reward)


def _numbers(measures: Measures) -> dict[str, float]:
    names = ("from_start", "everywhere", "cells", "never_tried", "rarely_tried", "last_steps")
    return {name: getattr(measures, name) for name in names}


def _table(found: dict[str, Measures], seeds: int) -> Any:
    columns = [
        "Q-learning",
        "from start",
        "everywhere",
        "cells",
        "never tried",
        f"tried < {_RARE}",
        f"moves, last {_LAST}",
    ]
    rows = [
        [
            name,
            f"{one.from_start} of {seeds}",
            f"{one.everywhere} of {seeds}",
            f"{100 * one.cells:.1f} %",
            f"{100 * one.never_tried:.1f} %",
            f"{100 * one.rarely_tried:.0f} %",
            f"{one.last_steps:.1f}",
        ]
        for name, one in found.items()
    ]
    return exercise_table(
        f"Optimal by value iteration, {seeds} seeds; tries of each move in each cell", columns, rows
    )


def _policy_figure(world: GridWorld, run: QTable, exact: "NDArray[np.float64]") -> "Figure":
    figure, axes = panels(1, 3, width=13, height=4.8, grid=False)
    limits = (min(0.0, float(exact[world.reachable].max(1).min())), 1.0)
    _draw_values(axes[0], world, run.values, limits, "Learned: max Q and greedy moves")
    _draw_values(axes[1], world, exact, limits, "Exact: value iteration")
    _draw_visits(axes[2], world, run)
    return figure


def _grid_image(axes: "Axes", world: GridWorld, values: "NDArray", limits: tuple, map: str) -> None:
    shown = np.ma.masked_all(world.size**2)
    shown[world.reachable] = values[world.reachable]
    axes.imshow(shown.reshape(world.size, world.size), cmap=map, vmin=limits[0], vmax=limits[1])
    axes.set_xticks(range(world.size))
    axes.set_yticks(range(world.size))
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    for wall in world.walls:
        row, column = divmod(wall, world.size)
        axes.fill_between([column - 0.5, column + 0.5], row - 0.5, row + 0.5, color=MUTED)
    row, column = divmod(world.goal, world.size)
    axes.text(column, row, "goal", ha="center", va="center", weight="bold", color=INK)


def _draw_values(
    axes: "Axes", world: GridWorld, q: "NDArray[np.float64]", limits: tuple, title: str
) -> None:
    """The heat map of max Q, its numbers, and an arrow for each best move."""
    _grid_image(axes, world, q.max(1), limits, "Blues")
    heading(axes, title)
    size = min(9.0, 45 / world.size)
    for cell in world.reachable:
        row, column = divmod(cell, world.size)
        best = q[cell].max()
        colour = "white" if (best - limits[0]) / (limits[1] - limits[0]) > 0.6 else INK
        axes.text(
            column, row + 0.33, f"{best:.2f}", ha="center", va="center", color=colour, fontsize=size
        )
        for action in np.flatnonzero(q[cell] >= best - 1e-9):
            down, right = MOVES[action]
            axes.annotate(
                "",
                xy=(column + 0.28 * right, row - 0.08 + 0.28 * down),
                xytext=(column - 0.05 * right, row - 0.08 - 0.05 * down),
                arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.3},
            )


def _draw_visits(axes: "Axes", world: GridWorld, run: QTable) -> None:
    """How often each of the four moves was tried in each cell, at the side it leads to."""
    most = np.log10(run.visits.sum(1) + 1)
    top = float(most.max())
    _grid_image(axes, world, most, (0, top), "Greens")
    heading(axes, f"Tries of each move; {100 * run.never_tried(world):.1f} % never tried")
    size = min(8.5, 40 / world.size)
    for cell in world.reachable:
        row, column = divmod(cell, world.size)
        colour = "white" if most[cell] > 0.6 * top else INK
        for (down, right), tries in zip(MOVES, run.visits[cell], strict=True):
            x, y = column + 0.31 * right, row + 0.34 * down
            axes.text(x, y, str(tries), ha="center", va="center", color=colour, fontsize=size)


def _learning_figure(found: dict[str, Measures], shortest: int) -> "Figure":
    figure, (axes,) = panels(1, 1, width=9, height=4.2)
    for (name, one), colour in zip(found.items(), COLOURS, strict=False):
        smooth = running_mean(one.steps, 20)
        band(axes, np.arange(1, smooth.shape[1] + 1), smooth, colour=colour, label=name)
    axes.axhline(shortest, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"shortest path from the start: {shortest}",
        (smooth.shape[1], shortest),
        xytext=(0, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        color=MUTED,
    )
    axes.set_yscale("log")
    ticks = [2, 5, 10, 20, 50, 100]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_xlabel("episode")
    axes.set_ylabel("moves")
    heading(axes, "Moves per episode, mean of 20 episodes and of all seeds")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure
