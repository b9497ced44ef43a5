"""`tutelage run` and `tutelage resume`."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tutelage.config import Recipe, load_recipe
from tutelage.config.overrides import parse_overrides
from tutelage.errors import ConfigError
from tutelage.pipeline import run_recipe
from tutelage.tracking.format import parse_duration

__all__ = ["Overrides", "read_recipe", "resume", "run"]

Overrides = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True,
        help="Any key of the recipe, under its stage's name: --sft.epochs 2, "
        "--inputs.reviews a.gz,b.gz, --unguarded.ppo.kl.coefficient 0.05.",
    ),
]
"""Options that belong to the recipe and not to the command."""

_REPEATED = Parameter(negative=(), show_default=False)
_OPTIONS = (
    "output",
    "only",
    "force",
    "weights-only",
    "time-limit",
    "seed",
    "threads",
    "parallel",
    "device",
    "gpus",
    "json",
    "help",
)


def run(
    recipe: Path,
    *overrides: Overrides,
    output: Path | None = None,
    only: Annotated[tuple[str, ...], _REPEATED] = (),
    force: Annotated[tuple[str, ...], _REPEATED] = (),
    weights_only: Annotated[tuple[str, ...], _REPEATED] = (),
    time_limit: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    parallel: int | None = None,
) -> None:
    """Runs a recipe: every stage that is not finished, then summary and report.

    Finished stages are recognised by their configuration and by what they read, and are not
    run again; after an interruption the same command goes on, inside a stage too.

    Example: tutelage run recipes/quickstart.yaml --seed 1 --output runs/seed1

    Parameters
    ----------
    recipe
        The recipe file.
    output
        The run folder [default: runs/NAME, by the recipe's name].
    only
        Run this stage and what it needs, nothing else. May be repeated.
    force
        Run this stage again although it is finished, and all that reads it. Where it has saved
        itself with other settings it begins anew. May be repeated.
    weights_only
        Begin this stage from the weights of its newest checkpoint, with a new optimiser and at its
        first step. May be repeated.
    time_limit
        After this time (2h, 90m, 45s) running stages save themselves and the run ends with exit
        code 124. The same command goes on.
    seed
        Seed from which every stage derives its own.
    threads
        Torch threads in all [default: one per core].
    parallel
        Stages that may run side by side [default: one per core].
    """
    settings = {"seed": seed, "threads": threads, "parallel": parallel}
    given = [f"--{name}={value}" for name, value in settings.items() if value is not None]
    chosen = read_recipe(recipe, [*overrides, *given])
    run_recipe(
        chosen,
        output or Path("runs") / chosen.name,
        only=only or None,
        force=force,
        weights_only=weights_only,
        time_limit=None if time_limit is None else parse_duration(time_limit),
    )


def resume(
    run: Path,
    *,
    only: Annotated[tuple[str, ...], _REPEATED] = (),
    time_limit: str | None = None,
) -> None:
    """Goes on with a run that was interrupted, from the recipe in its folder.

    The same as giving the command again that began it, options included. Paths in the recipe
    are read from the folder in which that command was given.

    Example: tutelage resume runs/quickstart

    Parameters
    ----------
    run
        The run folder.
    only
        Run this stage and what it needs, nothing else. May be repeated.
    time_limit
        After this time (2h, 90m, 45s) running stages save themselves and the run ends with exit
        code 124.
    """
    recipe = run / "recipe.yaml"
    if not recipe.is_file():
        raise ConfigError(f"{run} holds no run: {recipe} does not exist. Begin one: tutelage run")
    limit = None if time_limit is None else parse_duration(time_limit)
    run_recipe(load_recipe(recipe), run, only=only or None, time_limit=limit)


def read_recipe(path: Path, tokens: list[str]) -> Recipe:
    """Loads a recipe with its overrides.

    Raises:
        ConfigError: as `load_recipe`; a misspelt option of the command is named as such.
    """
    for override in parse_overrides(tokens):
        close = get_close_matches(override.key, _OPTIONS, 1)
        if close and "." not in override.key and override.key not in Recipe.model_fields:
            raise ConfigError(f"unknown option {override.option}. Did you mean --{close[0]}?")
    return load_recipe(path, tokens)
