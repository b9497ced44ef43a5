"""The configuration reference, `docs/configuration.md`, written from the models."""

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

from pydantic.fields import FieldInfo

from tutelage.config.base import Section
from tutelage.config.recipe import Recipe
from tutelage.config.schema import (
    Shape,
    field_default,
    field_help,
    field_shape,
    item_shape,
    stage_kinds,
    variants,
)

__all__ = ["configuration_reference"]

_INTRODUCTION = """\
# Configuration reference

<!-- Written by `tutelage config --reference`; a test compares the two. -->

A recipe is a YAML file with the keys of [Recipe](#recipe). Each entry below `stages` is one of the
sections of [Stages](#stages), chosen by its `kind`. Unknown keys are refused. A section given in
part keeps the rest of its default: `optimizer: {warmup: 0.1}` changes the warm-up alone.
Variables such as `${HOME}` are not replaced.

Every key can be set on the command line, under the stage's name:

```console
$ tutelage run recipes/quickstart.yaml --sft.epochs 2 --unguarded.ppo.kl.coefficient 0.05
```

A *reference* names what a stage reads: the output of another stage (`sft`), a file in its folder
(`world/rl.jsonl`), a file of yours (`inputs/reviews`), a path, or, for models, a name on a model
hub.
"""


def configuration_reference() -> str:
    """The whole page as Markdown."""
    kinds = stage_kinds()
    parts = [_INTRODUCTION, *_section("Recipe", Recipe, 2), "## Stages", ""]
    for kind, section in kinds.items():
        parts += _section(kind, section, 3)
    parts += ["## Sections", ""]
    for section in _nested([Recipe, *kinds.values()]):
        parts += _section(section.__name__, section, 3)
    return "\n".join(parts)


def _section(title: str, section: type[Section], level: int) -> list[str]:
    lines = [f"{'#' * level} {title}", "", cleandoc(section.__doc__ or ""), ""]
    lines += ["| Key | Allowed | Default | Meaning |", "| --- | --- | --- | --- |"]
    fields = section.model_fields
    for name in sorted(fields, key=lambda name: name != "kind"):
        cells = [f"`{name}`", *_cells(name, fields[name])]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return [*lines, ""]


def _cells(name: str, field: FieldInfo) -> tuple[str, str, str]:
    shape = field_shape(field)
    if name == "kind":
        return f"`{field.default}`", "", "Chooses this section."
    default = "*required*" if field.is_required() else _default(field_default(field))
    meaning = field_help(field)
    if not meaning and shape.section is not None:
        meaning = cleandoc(shape.section.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return _allowed(shape), default, meaning


def _allowed(shape: Shape) -> str:
    item = item_shape(shape)
    if shape.section is not None:
        null = " or null" if shape.allows_null else ""
        return f"{_link(shape.section)}{null}"
    if item is not None and variants(item):
        return "names, each with one of [Stages](#stages)"
    if item is not None and item.section is not None and shape.is_mapping:
        return f"names, each with a {_link(item.section)}"
    if item is not None and item.section is not None:
        return f"a list of {_link(item.section)}"
    return shape.describe()


def _default(value: Any) -> str:
    if not isinstance(value, Section):
        return f"`{_yaml(value)}`"
    plain = {name: field_default(field) for name, field in type(value).model_fields.items()}
    other = {name: getattr(value, name) for name in plain if getattr(value, name) != plain[name]}
    return ", ".join(f"`{name}: {_yaml(item)}`" for name, item in other.items())


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value) if str(value) else "''"


def _link(section: type[Section]) -> str:
    return f"[{section.__name__}](#{section.__name__.lower()})"


def _nested(sections: Any) -> Iterator[type[Section]]:
    """Every section inside the given ones, each once, outer ones first."""
    seen: dict[type[Section], None] = {}
    queue = list(sections)
    while queue:
        for field in queue.pop(0).model_fields.values():
            shape = field_shape(field)
            item = item_shape(shape)
            inner = shape.section or (item.section if item else None)
            if inner is not None and inner not in seen:
                seen[inner] = None
                queue.append(inner)
    return iter(seen)
