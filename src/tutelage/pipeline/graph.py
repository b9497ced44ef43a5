"""The order of a recipe's stages: what is needed, what may run side by side."""

import os
from collections.abc import Iterable
from difflib import get_close_matches

from tutelage.config import Recipe
from tutelage.errors import ConfigError

__all__ = ["available_cores", "check_stage_names", "needed_stages", "stage_threads"]


def check_stage_names(recipe: Recipe, names: Iterable[str], option: str) -> None:
    """Refuses names that are no stages of the recipe.

    Raises:
        ConfigError: naming the nearest stage.
    """
    for name in names:
        if name not in recipe.stages:
            close = get_close_matches(name, recipe.stages, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"{option} {name}: no such stage.{hint} Stages: {', '.join(recipe.stages)}"
            )


def needed_stages(recipe: Recipe, wanted: Iterable[str]) -> tuple[str, ...]:
    """The wanted stages and all they depend on, in recipe order."""
    needed = set(wanted)
    for name in reversed(recipe.stages):
        if name in needed:
            needed.update(recipe.dependencies(name))
    return tuple(name for name in recipe.stages if name in needed)


def stage_threads(recipe: Recipe, name: str, threads: int, parallel: int) -> int:
    """Torch threads of a stage: its share of `threads` when all that can runs beside it.

    The share depends on the recipe alone and not on what happens to run at that moment:
    another number of threads adds numbers up in another order, and a run that was
    interrupted must end as one that was not. The shares of stages that run side by side
    never exceed `threads`.
    """
    before = set(needed_stages(recipe, [name]))
    unrelated = [
        other
        for other in recipe.stages
        if other not in before and name not in needed_stages(recipe, [other])
    ]
    return max(1, threads // min(parallel, 1 + len(unrelated)))


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
