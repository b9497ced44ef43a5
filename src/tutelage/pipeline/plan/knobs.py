"""What to change so that a recipe fits, and what each change is worth.

Each knob is turned by itself, and the recipe is planned again: what it saves is a difference of
two plans, not a rule of thumb.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tutelage.config import Recipe, Section
from tutelage.pipeline.plan.recipe import RecipePlan

__all__ = ["Knob", "helpful_knobs"]

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


def helpful_knobs(
    recipe: Recipe, plan: RecipePlan, limit: int, plan_again: Callable[[Recipe], RecipePlan]
) -> list[Knob]:
    """The knobs that lower the peak, the one that saves the most first.

    Args:
        recipe: as it is.
        plan: of it.
        limit: bytes it should fit in; of several values of a key, the first that does is taken.
        plan_again: plans a changed recipe.
    """
    found = []
    for path, values in _candidates(recipe, plan):
        tried = None
        for value in values:
            changed = _changed(recipe, path, value)
            if changed is None:
                continue
            tried = Knob(_option(path, value), peak := plan_again(changed).peak, plan.peak - peak)
            if peak <= limit:
                break
        if tried is not None and tried.saved > _WORTH_SAYING * plan.peak:
            found.append(tried)
    return sorted(found, key=lambda knob: -knob.saved)


def _candidates(recipe: Recipe, plan: RecipePlan) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Keys of the stages that make the peak, with values that need less and less."""
    if len(plan.together) > 1:
        yield ("parallel",), list(range(len(plan.together) - 1, 0, -1))
    for name in plan.together:
        stage = recipe.stages[name]
        at = ("stages", name)
        inner = (*at, "ppo") if stage.kind == "train" else at
        for batch in ("microbatch_tokens", "head_tokens"):
            yield (*inner, "batch", batch), _halves(recipe, (*inner, "batch", batch), least=128)
        yield (*inner, "batch", "gradient_checkpointing"), [True]
        yield (
            (*inner, "sampling", "batch_size"),
            _halves(recipe, (*inner, "sampling", "batch_size"), least=8),
        )
        for optimizer in (("optimizer",), ("ppo", "policy"), ("ppo", "critic")):
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
    given = recipe.model_dump()
    place = given
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        return Recipe.model_validate(given)
    except ValidationError:
        return None


def _option(path: tuple[str, ...], value: Any) -> str:
    keys = path[1:] if path[0] == "stages" else path
    if isinstance(value, dict):
        return " ".join(_option((*path, key), item) for key, item in value.items())
    shown = str(value).lower() if isinstance(value, bool) else value
    return f"--{'.'.join(keys)} {shown}"
