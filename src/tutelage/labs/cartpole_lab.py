"""The exercises of CartPole: four learners, three discounts, and what a baseline is good for."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.labs.cartpole import (
    LEARNERS,
    PPO,
    REINFORCE_BASELINE,
    Learned,
    cartpole,
    evaluate,
    gradient_samples,
    learn,
    random_actions,
    sampler,
)
from tutelage.labs.plots import COLOURS, INK, MUTED, heading, panels
from tutelage.labs.result import LabResult, exercise_table
from tutelage.labs.settings import CartPoleSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["GradientNoise", "cartpole_lab", "gradient_noise"]

_POINTS = 60
"""Points of a learning curve."""


@dataclass(frozen=True, slots=True)
class GradientNoise:
    """How policy gradients of one policy scatter from batch to batch."""

    norms: NDArray[np.float64]
    """Of the gradient of each batch."""

    variance: float
    """Mean squared distance of a gradient from the mean gradient: the trace of the covariance."""

    signal: float
    """Squared norm of the mean gradient."""


def cartpole_lab(settings: CartPoleSettings) -> LabResult:
    """Runs the exercises.

    Raises:
        MissingExtraError: gymnasium or matplotlib is not installed.
    """
    figure, axes = panels(1, 3, width=15, height=4.4)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    learned = {
        name: [learn(cartpole, learner, steps=settings.steps, seed=seed) for seed in seeds]
        for name, learner in LEARNERS.items()
    }
    swept = {
        f"PPO, γ {gamma:g}": [
            learn(cartpole, replace(PPO, gamma=gamma), steps=settings.steps, seed=seed)
            for seed in seeds
        ]
        for gamma in settings.discounts
    }
    dice = random_actions(2, seed=settings.seed)
    scores = {"random": [evaluate(cartpole, dice, episodes=settings.episodes)]}
    scores |= {
        name: [
            evaluate(cartpole, sampler(run.policy, None), episodes=settings.episodes)
            for run in runs
        ]
        for name, runs in (learned | swept).items()
    }
    noise = _noise(settings)
    _draw_curves(axes[0], learned, settings.steps, "Four learners")
    _draw_curves(axes[1], swept, settings.steps, "Discounts")
    _draw_noise(axes[2], noise)
    return LabResult(
        summary={
            "lab": "cartpole",
            "settings": {
                "steps": settings.steps,
                "seeds": list(seeds),
                "episodes": settings.episodes,
                "discounts": list(settings.discounts),
                "noise_steps": settings.noise_steps,
                "noise_batches": settings.noise_batches,
            },
            "evaluation": {
                name: {"mean": [float(each.mean()) for each in runs]}
                | {"median": [float(np.median(each)) for each in runs]}
                for name, runs in scores.items()
            },
            "gradient": {
                name: {
                    "norm_mean": float(one.norms.mean()),
                    "norm_variance": float(one.norms.var()),
                    "variance": one.variance,
                    "signal": one.signal,
                }
                for name, one in noise.items()
            },
        },
        tables=[_score_table(scores, settings), _noise_table(noise, settings)],
        figures={"cartpole": figure, "returns": _returns_figure(scores)},
    )


def gradient_noise(gradients: torch.Tensor) -> GradientNoise:
    """The scatter of gradients, `[batches, weights]`."""
    mean = gradients.mean(0)
    count = len(gradients)
    variance = float((gradients - mean).square().sum() / (count - 1))
    # |mean|² of a finite sample is too large by variance / count.
    signal = float(mean.square().sum()) - variance / count
    return GradientNoise(gradients.norm(dim=1).double().numpy(), variance, max(signal, 0.0))


def _noise(settings: CartPoleSettings) -> dict[str, GradientNoise]:
    half = learn(cartpole, REINFORCE_BASELINE, steps=settings.noise_steps, seed=settings.seed)
    assert half.critic is not None
    without, having = gradient_samples(
        cartpole, half.policy, half.critic, batches=settings.noise_batches
    )
    return {
        "without baseline": gradient_noise(without),
        "with baseline": gradient_noise(having),
    }


def _score_table(scores: dict[str, list[NDArray]], settings: CartPoleSettings) -> Any:
    rows = []
    for name, runs in scores.items():
        means = [each.mean() for each in runs]
        rows.append(
            [
                name,
                " ".join(f"{mean:.0f}" for mean in means),
                f"{np.median(np.concatenate(runs)):.0f}",
                f"{100 * np.mean(np.concatenate(runs) >= 475):.0f} %",
            ]
        )
    title = (
        f"Greedy policy after {settings.steps:,} steps, {settings.episodes} episodes a seed; "
        "at most 500"
    )
    return exercise_table(title, ["policy", "mean of each seed", "median", "episodes ≥ 475"], rows)


def _noise_table(noise: dict[str, GradientNoise], settings: CartPoleSettings) -> Any:
    columns = ["gradient", "mean norm", "variance of norm", "variance", "variance / signal"]
    rows = [
        [
            name,
            f"{one.norms.mean():.3g}",
            f"{one.norms.var():.3g}",
            f"{one.variance:.3g}",
            f"{one.variance / one.signal:.3g}" if one.signal else "no signal",
        ]
        for name, one in noise.items()
    ]
    return exercise_table(f"{settings.noise_batches} batches of 8 episodes", columns, rows)


def _curve(run: Learned, grid: NDArray) -> NDArray:
    """Mean of the last 20 finished episodes at each number of steps."""
    ends = np.array([end for end, _ in run.episodes])
    earned = np.array([total for _, total in run.episodes])
    done = np.searchsorted(ends, grid, side="right")
    return np.array([earned[max(0, k - 20) : k].mean() if k else np.nan for k in done])


def _draw_curves(axes: "Axes", runs: dict[str, list[Learned]], steps: int, title: str) -> None:
    grid = np.linspace(steps / _POINTS, steps, _POINTS)
    for (name, several), colour in zip(runs.items(), COLOURS, strict=False):
        curves = np.array([_curve(run, grid) for run in several])
        for curve in curves:
            axes.plot(grid, curve, color=colour, alpha=0.25, linewidth=1)
        axes.plot(grid, curves.mean(0), color=colour, label=name)
    axes.set_xlabel("steps")
    axes.set_ylabel("return, mean of 20 episodes")
    axes.set_ylim(0, 520)
    axes.locator_params(axis="x", nbins=5)
    heading(axes, title, legend="upper left")


def _draw_noise(axes: "Axes", noise: dict[str, GradientNoise]) -> None:
    edges = np.linspace(0, max(one.norms.max() for one in noise.values()), 25).tolist()
    for colour, (name, one) in zip(COLOURS, noise.items(), strict=False):
        axes.hist(one.norms, bins=edges, color=colour, alpha=0.2, linewidth=0)
        axes.hist(one.norms, bins=edges, color=colour, histtype="step", lw=1.8, label=name)
    axes.set_xlabel("norm")
    axes.set_ylabel("batches")
    axes.margins(y=0.25)
    heading(axes, "Norm of the policy gradient", legend="upper right")


def _returns_figure(scores: dict[str, list[NDArray]]) -> "Figure":
    figure, (axes,) = panels(1, 1, width=9, height=0.9 + 0.45 * len(scores), grid=False)
    random = np.random.default_rng(0)
    for row, (name, runs) in enumerate(scores.items()):
        earned = np.concatenate(runs)
        colour = MUTED if name == "random" else COLOURS[0]
        height = row + random.uniform(-0.25, 0.25, len(earned))
        axes.plot(earned, height, color=colour, alpha=0.25, marker="o", linestyle="none", ms=3)
        axes.plot([np.median(earned)] * 2, [row - 0.35, row + 0.35], color=INK, linewidth=2)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.set_xlim(0, 515)
    axes.grid(visible=True, axis="x")
    heading(axes, "Every evaluation episode; the bar is the median")
    axes.set_xlabel("return")
    return figure
