"""`tutelage plan`: what a recipe needs, before anything is loaded."""

import json
from pathlib import Path

from tutelage.cli.run import Overrides, read_recipe
from tutelage.errors import ConfigError
from tutelage.pipeline.finish import open_console

__all__ = ["plan"]

_DOES_NOT_FIT = 2


def plan(
    recipe: Path,
    *overrides: Overrides,
    device: str | None = None,
    gpus: int = 1,
    json: bool = False,
) -> int:
    """Prints the memory and the time that a recipe needs; exit code 2 where it does not fit.

    Counts models from their config.json, or from the shape of a pretrain stage; no weights are
    loaded. On this machine products and copies are timed for a second.

    Example: tutelage plan recipes/quickstart.yaml --device h200

    Parameters
    ----------
    recipe
        The recipe file.
    device
        A GPU by name: h200, h100, a100-80gb, a100-40gb, l40s, a10, l4, rtx4090, rtx3090
        [default: this machine].
    gpus
        GPUs of the named device that share the rows, each with a replica.
    json
        Print everything in bytes and seconds, as JSON.
    """
    if gpus < 1:
        raise ConfigError(f"--gpus {gpus}: expected 1 or more")
    if gpus > 1 and device is None:
        raise ConfigError(f"--gpus {gpus} needs --device: on this machine a stage has one device")
    chosen = read_recipe(recipe, list(overrides))
    # transformers takes a second to import, which other commands need not wait for.
    from tutelage.pipeline.graph import available_cores
    from tutelage.pipeline.plan.devices import named_device, present_device
    from tutelage.pipeline.plan.recipe import recipe_references
    from tutelage.pipeline.plan.table import plan_json, plan_tables
    from tutelage.pipeline.plan.verdict import judge

    found = named_device(device) if device else present_device(chosen.threads or available_cores())
    verdict = judge(chosen, recipe_references(chosen), tuple(chosen.stages), found, gpus)
    if json:
        _print_json(plan_json(verdict))
    else:
        open_console().print(plan_tables(verdict))
    return 0 if verdict.fits else _DOES_NOT_FIT


def _print_json(row: object) -> None:
    print(json.dumps(row, indent=2, allow_nan=False))
