"""A recipe on a device: planned, compared with its memory, and mended in thought.

Imports no torch by itself: the process that supervises a run stays light, and has this done in a
child.
"""

from collections.abc import Sequence
from dataclasses import replace

from tutelage.config import Recipe
from tutelage.pipeline.graph import available_cores, stage_threads
from tutelage.pipeline.plan.devices import Device, Pace
from tutelage.pipeline.plan.knobs import Advice, advise
from tutelage.pipeline.plan.parts import Place
from tutelage.pipeline.plan.recipe import RecipePlan, model_sizes, per_device, plan_recipe
from tutelage.pipeline.plan.sizes import ModelSize
from tutelage.pipeline.plan.table import Verdict
from tutelage.pipeline.references import References

__all__ = ["judge"]


def judge(
    recipe: Recipe, references: References, names: Sequence[str], device: Device, gpus: int = 1
) -> Verdict:
    """Plans the named stages on a device.

    Args:
        recipe: whose stages they are.
        references: of the recipe's inputs.
        names: stages that will run.
        device: where.
        gpus: replicas that share the rows.

    Raises:
        ConfigError: a reference leads to no model.
        DataError: a reference names nothing that exists.
        ModelError: the size of a model is not known.
    """
    sizes = model_sizes(recipe, references, names)

    def plan(changed: Recipe) -> RecipePlan:
        return plan_recipe(
            per_device(changed, gpus) if gpus > 1 else changed,
            sizes,
            names,
            parallel=_parallel(changed),
            place=_place(changed, device),
            process=device.process,
            references=references if device.rates is not None else None,
        )

    found = plan(recipe)
    fits = found.peak <= device.memory
    return Verdict(
        recipe=recipe.name,
        plan=found,
        device=device,
        shares=_shares(recipe, names) if device.kind == "cpu" else {},
        advice=Advice() if fits else advise(recipe, found, device.memory, plan),
        gpus=gpus,
        paces=_paces(found, device, recipe.threads or available_cores()),
    )


def _paces(plan: RecipePlan, device: Device, cores: int) -> dict[ModelSize, Pace]:
    """Of each width of models, where they can be measured."""
    if device.rates is None or not device.measured:
        return {}
    from tutelage.pipeline.plan.calibration import measured_pace

    threads = cores if device.kind == "cpu" else 1
    one = replace(device.rates, float32=device.rates.float32 / threads)
    sizes = dict.fromkeys(stage.size for stage in plan.stages if stage.size is not None)
    return {size: measured_pace(size, device.kind, one) for size in sizes}


def _place(recipe: Recipe, device: Device) -> Place:
    cores = recipe.threads or available_cores()
    return Place(device.kind, cores if device.kind == "cpu" else 1)


def _parallel(recipe: Recipe) -> int:
    cores = recipe.threads or available_cores()
    return min(recipe.parallel or available_cores(), cores)


def _shares(recipe: Recipe, names: Sequence[str]) -> dict[str, float]:
    threads = recipe.threads or available_cores()
    return {
        name: stage_threads(recipe, name, threads, _parallel(recipe)) / threads for name in names
    }
