"""`tutelage lab`: classic reinforcement learning, small enough to see through."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from tutelage.errors import ConfigError
from tutelage.labs.settings import (
    BanditSettings,
    CartPoleSettings,
    Exploration,
    GridSettings,
)
from tutelage.pipeline.finish import open_console

if TYPE_CHECKING:
    from tutelage.labs.result import LabResult

__all__ = ["bandit", "build_lab_app", "cartpole", "gridworld", "timeline"]

_GRID, _BANDIT, _CARTPOLE = GridSettings(), BanditSettings(), CartPoleSettings()
_HELP = """\
Runs a lab: exercises of classic reinforcement learning, with tables and figures.

The pages in docs/labs say what to change and what one will see.

Example: tutelage lab gridworld --step-reward -0.1 --output runs/lab-gridworld
"""


def build_lab_app(*, sort_key: int) -> App:
    """The command with one command per lab; the key is its place among the other commands."""
    app = App(name="lab", help=_HELP, sort_key=sort_key)
    commands: tuple[Callable[..., Any], ...] = (gridworld, bandit, cartpole, timeline)
    for position, command in enumerate(commands):
        app.command(command, sort_key=position)
    return app


def gridworld(
    *,
    output: Path = Path("runs/lab-gridworld"),
    seed: int = _GRID.seed,
    size: int = _GRID.size,
    wall: tuple[str, ...] = (),
    step_reward: float = _GRID.step_reward,
    episodes: int = _GRID.episodes,
    alpha: float = _GRID.alpha,
    gamma: float = _GRID.gamma,
    explore: Exploration = _GRID.explore,
    epsilon: float = _GRID.epsilon,
    temperature: float = _GRID.temperature,
    exploring_starts: bool = _GRID.exploring_starts,
    seeds: int = _GRID.seeds,
) -> None:
    """Q-learning on a grid, beside the exact optimum.

    Example: tutelage lab gridworld --size 5 --wall 1,1 --wall 1,2

    Parameters
    ----------
    output
        The folder for figures and summary.json.
    seed
        The run that is drawn; the table begins with it.
    size
        Cells a side.
    wall
        A closed cell, as row,column counted from 0. May be repeated.
    step_reward
        Reward of a move that does not enter the goal; entering it earns 1.
    episodes
        Episodes of a run.
    alpha
        Learning rate: share of the error that is corrected at once.
    gamma
        Discount per move, below 1.
    explore
        epsilon-greedy or boltzmann.
    epsilon
        Share of random moves.
    temperature
        Temperature of Boltzmann exploration, in units of reward.
    exploring_starts
        Begin each episode in a random cell.
    seeds
        Runs per row of the table.
    """
    from tutelage.labs.gridworld_lab import gridworld_lab

    _at_least(1, episodes=episodes, seeds=seeds)
    _within("alpha", alpha, 0 < alpha <= 1, "above 0 and at most 1")
    _within("gamma", gamma, 0 <= gamma < 1, "at least 0 and below 1")
    _within("epsilon", epsilon, 0 <= epsilon <= 1, "from 0 to 1")
    _within("temperature", temperature, temperature > 0, "above 0")
    settings = GridSettings(
        size=size,
        walls=tuple(_cell(each) for each in wall),
        step_reward=step_reward,
        episodes=episodes,
        alpha=alpha,
        gamma=gamma,
        explore=explore,
        epsilon=epsilon,
        temperature=temperature,
        exploring_starts=exploring_starts,
        seeds=seeds,
        seed=seed,
    )
    _show(gridworld_lab(settings), output)


def bandit(
    *,
    output: Path = Path("runs/lab-bandit"),
    seed: int = _BANDIT.seed,
    pulls: int = _BANDIT.pulls,
    players: int = _BANDIT.players,
    epsilon: float = _BANDIT.epsilon,
    temperature: tuple[float, ...] = _BANDIT.temperatures,
) -> None:
    """Ten arms: epsilon-greedy against softmax at several temperatures.

    Example: tutelage lab bandit --temperature 0.2 --temperature 0.5

    Parameters
    ----------
    output
        The folder for figures and summary.json.
    seed
        Of arms, payments and choices.
    pulls
        Pulls of each player.
    players
        Players of each rule, each with arms of its own.
    epsilon
        Share of random pulls of epsilon-greedy.
    temperature
        Temperature of softmax. May be repeated.
    """
    from tutelage.labs.bandit_lab import bandit_lab

    _at_least(1, pulls=pulls)
    _at_least(2, players=players)
    _within("epsilon", epsilon, 0 <= epsilon <= 1, "from 0 to 1")
    for tau in temperature:
        _within("temperature", tau, tau > 0, "above 0")
    _show(bandit_lab(BanditSettings(pulls, players, epsilon, temperature, seed)), output)


def cartpole(
    *,
    output: Path = Path("runs/lab-cartpole"),
    seed: int = _CARTPOLE.seed,
    steps: int = _CARTPOLE.steps,
    seeds: int = _CARTPOLE.seeds,
    discount: tuple[float, ...] = _CARTPOLE.discounts,
    episodes: int = _CARTPOLE.episodes,
) -> None:
    """REINFORCE, baseline, actor-critic and PPO by the functions that align language models.

    Example: tutelage lab cartpole --steps 100000 --seeds 1

    Parameters
    ----------
    output
        The folder for figures and summary.json.
    seed
        The first training.
    steps
        Steps of each training, over all environments.
    seeds
        Trainings of each learner.
    discount
        Discount per step of the sweep. May be repeated.
    episodes
        Evaluation episodes of each policy.
    """
    from tutelage.labs.cartpole_lab import cartpole_lab

    _at_least(1, steps=steps, seeds=seeds, episodes=episodes)
    for gamma in discount:
        _within("discount", gamma, 0 <= gamma <= 1, "from 0 to 1")
    settings = CartPoleSettings(
        steps=steps, seeds=seeds, discounts=discount, episodes=episodes, seed=seed
    )
    _show(cartpole_lab(settings), output)


def timeline(*, output: Path = Path("runs/lab-timeline"), data: Path | None = None) -> None:
    """Milestones from the perceptron to GPT-4, as a figure.

    Example: tutelage lab timeline --output runs/lab-timeline

    Parameters
    ----------
    output
        The folder for the figure and summary.json.
    data
        A YAML file with milestones of your own [default: the built-in one].
    """
    from tutelage.labs.timeline import timeline_lab

    _show(timeline_lab() if data is None else timeline_lab(data), output)


def _show(result: "LabResult", output: Path) -> None:
    from tutelage.labs.result import write_result

    files = write_result(result, output)
    console = open_console()
    for table in result.tables:
        console.print(table)
    console.print(f"written: {', '.join(str(file) for file in files)}", soft_wrap=True)


def _cell(text: str) -> tuple[int, int]:
    row, comma, column = text.partition(",")
    if not (comma and row.strip().isdigit() and column.strip().isdigit()):
        raise ConfigError(f"--wall {text}: expected row,column counted from 0, for example 1,2")
    return int(row), int(column)


def _at_least(least: int, **options: int) -> None:
    for name, value in options.items():
        _within(name, value, value >= least, f"at least {least}")


def _within(name: str, value: float, allowed: bool, expected: str) -> None:
    if not allowed:
        raise ConfigError(f"--{name.replace('_', '-')} {value:g}: expected {expected}")
