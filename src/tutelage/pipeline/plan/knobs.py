"""What to change so that a recipe fits, and what each change is worth.

Each knob is turned by itself, and the recipe is planned again: what it saves is a difference of
two plans, not a rule of thumb.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tutelage.config import Recipe, Section, TrainStage
from tutelage.pipeline.plan.recipe import ALONE, RecipePlan

__all__ = ["Advice", "Knob", "advise"]

_WORTH_SAYING = 0.02
"""Share of the peak below which a saving is not mentioned."""

_ALGORITHMS = ("adamw8bit", "adafactor")
_LORA = {"rank": 16}


@dataclass(frozen=True)
class Knob:
    """A change of the recipe, as an option of the command line."""

    option: str
    peak: int
    """Highest bytes of the run with this change alone."""
    saved: int


@dataclass(frozen=True)
class Advice:
    """What to change."""

    knobs: tuple[Knob, ...] = ()
    """The one that saves the most first."""
    peak: int = 0
    """Highest bytes of the run with all of these changes; 0 where there are none."""


def advise(
    recipe: Recipe, plan: RecipePlan, limit: int, plan_again: Callable[[Recipe], RecipePlan]
) -> Advice:
    """The knobs that lower the peak.

    Args:
        recipe: as it is.
        plan: of it.
        limit: bytes it should fit in; of several values of a key, the first that does is taken.
        plan_again: plans a changed recipe.
    """
    found, everything = [], recipe
    for path, values in _candidates(recipe, plan):
        tried = None
        for value in values:
            if (changed := _changed(recipe, path, value)) is None:
                continue
            tried = Knob(_option(path, value), peak := plan_again(changed).peak, plan.peak - peak)
            if peak <= limit:
                break
        if tried is not None and tried.saved > _WORTH_SAYING * plan.peak:
            found.append(tried)
            everything = _changed(everything, path, value) or everything
    if not found:
        return Advice()
    knobs = sorted(found, key=lambda knob: -knob.saved)
    return Advice(tuple(knobs), plan_again(everything).peak)


def _candidates(recipe: Recipe, plan: RecipePlan) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Keys of the stages that make the peak, with values that need less and less."""
    if len(plan.together) > 1:
        yield ("parallel",), list(range(len(plan.together) - 1, 0, -1))
    for name in plan.together:
        stage = recipe.stages[name]
        at = ("stages", name)
        section = stage.learner.section if isinstance(stage, TrainStage) else ""
        inner = (*at, section) if section else at
        for batch in ("microbatch_tokens", "head_tokens"):
            yield (*inner, "batch", batch), _halves(recipe, (*inner, "batch", batch), least=128)
        yield (*inner, "batch", "gradient_checkpointing"), [True]
        yield (
            (*inner, "sampling", "batch_size"),
            _halves(recipe, (*inner, "sampling", "batch_size"), least=8),
        )
        for optimizer in (("optimizer",), (section, "policy"), (section, "critic")):
            yield (*at, *optimizer, "algorithm"), list(_ALGORITHMS)
        yield (*inner, "precision", "compute"), ["bfloat16"]
        yield (*at, "critic_trunk"), ["shared"]
        yield (*at, "lora"), [_LORA]
        for length in ("max_length", "max_prompt_tokens"):
            yield (*at, length), _halves(recipe, (*at, length), least=64)


def _halves(recipe: Recipe, path: tuple[str, ...], least: int) -> list[int]:
    """Halves of a number, down to the least that is sensible; none where there is no such key."""
    value = _value(recipe, path)
    halves = []
    while isinstance(value, int) and value > least:
        value = max(least, value // 2)
        halves.append(value)
    return halves


def _value(at: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        at = at.get(key) if isinstance(at, dict) else getattr(at, key, None)
    return at


def _changed(recipe: Recipe, path: tuple[str, ...], value: Any) -> Recipe | None:
    """The recipe with one key changed; None where there is no such key or it is not allowed."""
    holder = _value(recipe, path[:-1])
    if not isinstance(holder, Section) or path[-1] not in type(holder).model_fields:
        return None
    if _value(recipe, path) == value or (path[-1] == "lora" and _value(recipe, path) is not None):
        return None
    if path[0] != "stages":
        return recipe.model_copy(update={path[0]: value})
    name, stage = path[1], recipe.stages[path[1]]
    given = stage.model_dump()
    place = given
    for key in path[2:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        changed = type(stage).model_validate(given)
    except ValidationError:
        return None
    return recipe.model_copy(update={"stages": {**recipe.stages, name: changed}})


def _option(path: tuple[str, ...], value: Any) -> str:
    if path[0] == "stages":
        path = path[2:] if path[1] == ALONE else path[1:]
    if isinstance(value, dict):
        return " ".join(f"--{'.'.join((*path, key))} {item}" for key, item in value.items())
    shown = str(value).lower() if isinstance(value, bool) else value
    return f"--{'.'.join(path)} {shown}"
