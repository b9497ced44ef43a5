"""The exercises of the bandit: epsilon-greedy beside softmax at four temperatures."""

from typing import TYPE_CHECKING

import numpy as np

from tutelage.labs.bandit import ARMS, EpsilonGreedy, Pulls, Rule, Softmax, play
from tutelage.labs.plots import COLOURS, INK, MUTED, band, heading, panels, running_mean
from tutelage.labs.result import LabResult, exercise_table
from tutelage.labs.settings import BanditSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["bandit_lab"]

_SMOOTH = 50


def bandit_lab(settings: BanditSettings) -> LabResult:
    """Runs the exercises.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    rules: dict[str, Rule] = {f"ε-greedy, ε {settings.epsilon:g}": EpsilonGreedy(settings.epsilon)}
    rules |= {f"softmax, τ {tau:g}": Softmax(tau) for tau in settings.temperatures}
    last = max(1, settings.pulls // 10)
    found = {
        name: play(rule, pulls=settings.pulls, players=settings.players, seed=settings.seed)
        for name, rule in rules.items()
    }
    numbers = {name: _numbers(pulls, last) for name, pulls in found.items()}
    columns = [
        "rule",
        "reward per pull",
        f"last {last}",
        "regret per pull",
        "best arm",
        "arms used",
    ]
    rows = [
        [
            name,
            f"{one['reward']:.3f} ±{one['reward_half_width']:.3f}",
            f"{one['last_reward']:.3f}",
            f"{one['regret']:.3f}",
            f"{100 * one['best_arm']:.0f} %",
            f"{one['arms_used']:.1f}",
        ]
        for name, one in numbers.items()
    ]
    title = f"{ARMS} arms, {settings.pulls:,} pulls, {settings.players} players; ± 95 % interval"
    return LabResult(
        summary={
            "lab": "bandit",
            "settings": {
                "pulls": settings.pulls,
                "players": settings.players,
                "epsilon": settings.epsilon,
                "temperatures": list(settings.temperatures),
                "seed": settings.seed,
            },
            "rules": numbers,
            "final_distribution": {
                name: pulls.final_distribution(last).tolist() for name, pulls in found.items()
            },
        },
        tables=[exercise_table(title, columns, rows)],
        figures={
            "reward": _reward_figure(found),
            "arms": _arms_figure(found, last),
        },
    )


def _numbers(pulls: Pulls, last: int) -> dict[str, float]:
    each = pulls.rewards.mean(1)
    distribution = pulls.final_distribution(last)
    used = distribution[distribution > 0]
    return {
        "reward": float(each.mean()),
        "reward_half_width": float(1.96 * each.std(ddof=1) / np.sqrt(len(each))),
        "last_reward": float(pulls.rewards[:, -last:].mean()),
        "regret": float((pulls.best - each).mean()),
        "best_arm": float(distribution[0]),
        # exp(entropy): how many equally likely arms would be as unpredictable.
        "arms_used": float(np.exp(-(used * np.log(used)).sum())),
    }


def _reward_figure(found: dict[str, Pulls]) -> "Figure":
    figure, (axes,) = panels(1, 1, width=8.5, height=4.6)
    for (name, pulls), colour in zip(found.items(), COLOURS, strict=False):
        smooth = running_mean(pulls.rewards, _SMOOTH)
        band(axes, np.arange(1, smooth.shape[1] + 1), smooth, colour=colour, label=name)
    best = float(np.mean([pulls.best.mean() for pulls in found.values()]))
    axes.axhline(best, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        "always the best arm",
        (1, best),
        xytext=(4, 4),
        textcoords="offset points",
        color=MUTED,
    )
    heading(axes, f"Reward per pull, mean of {_SMOOTH} pulls and all players, 95 % band")
    axes.set_xlabel("pull")
    axes.margins(x=0.01)
    axes.set_ylim(top=best + 0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _arms_figure(found: dict[str, Pulls], last: int) -> "Figure":
    figure, axes = panels(1, len(found), width=2.5 * len(found), height=3.0)
    for panel, (name, pulls), colour in zip(axes, found.items(), COLOURS, strict=False):
        shares = 100 * pulls.final_distribution(last)
        panel.bar(np.arange(1, ARMS + 1), shares, color=colour)
        panel.text(1, shares[0] + 2, f"{shares[0]:.0f} %", ha="left", color=INK)
        panel.set_ylim(0, 100)
        heading(panel, name)
        panel.set_xticks([1, 5, 10])
        panel.set_xlabel("arm, best to worst")
    axes[0].set_ylabel(f"% of the last {last} pulls")
    return figure
