"""Reads the configuration models: which section a key path leads to, what a field allows.

Error messages, overrides, command-line options and the configuration reference all speak
about fields; each gets its words from here, so that they cannot disagree.
"""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import StringConstraints
from pydantic.fields import FieldInfo

from tutelage.config.base import Section
from tutelage.config.document import KeyPath
from tutelage.config.stages import Stage

__all__ = [
    "Leaf",
    "Shape",
    "field_default",
    "field_help",
    "field_shape",
    "item_shape",
    "leaves",
    "section_at",
    "shape_at",
    "stage_kinds",
    "variants",
]


@dataclass(frozen=True)
class Shape:
    """A field's type: bare, and what restricts it."""

    annotation: Any
    metadata: tuple[Any, ...] = ()

    @property
    def members(self) -> tuple["Shape", ...]:
        """The alternatives of a union, or the shape itself; restrictions go to each."""
        if get_origin(self.annotation) in (Union, types.UnionType):
            return tuple(_bare(member, self.metadata) for member in get_args(self.annotation))
        return (self,)

    @property
    def section(self) -> type[Section] | None:
        """The section, where there is exactly one that the value can be."""
        sections = [member.annotation for member in self.members if _is_section(member)]
        return sections[0] if len(sections) == 1 else None

    @property
    def items(self) -> tuple["Shape", ...]:
        """What a list holds, position by position if they differ; what a mapping's keys lead to."""
        arguments = get_args(self.annotation)
        if get_origin(self.annotation) is dict:
            return (_bare(arguments[1]),)
        if get_origin(self.annotation) is tuple:
            return tuple(_bare(item) for item in arguments if item is not Ellipsis)
        return ()

    @property
    def is_list(self) -> bool:
        """Whether the value may be a list."""
        return any(get_origin(member.annotation) is tuple for member in self.members)

    @property
    def is_mapping(self) -> bool:
        """Whether the value has keys of the user's choice."""
        return any(get_origin(member.annotation) is dict for member in self.members)

    @property
    def is_text(self) -> bool:
        """Whether text needs no reading: nothing but text is allowed, or null."""
        return {member.annotation for member in self.members} - {type(None)} == {str}

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of its literals."""
        literals = [m.annotation for m in self.members if get_origin(m.annotation) is Literal]
        return tuple(choice for literal in literals for choice in get_args(literal))

    @property
    def allows_null(self) -> bool:
        """Whether null is allowed."""
        return any(member.annotation is type(None) for member in self.members)

    def describe(self) -> str:
        """What is allowed, in words."""
        kinds = variants(self)
        if kinds:
            return f"a section whose kind is one of {', '.join(kinds)}"
        return " or ".join(dict.fromkeys(_describe(member) for member in self.members))


@dataclass(frozen=True)
class Leaf:
    """A field that holds a value and not a section, with the way to it."""

    path: tuple[str, ...]
    shape: Shape
    help: str
    required: bool
    default: Any


def field_shape(field: FieldInfo) -> Shape:
    """The shape of a section's field."""
    return _bare(field.annotation, tuple(field.metadata))


def item_shape(shape: Shape) -> Shape | None:
    """The shape of what a list or a mapping holds."""
    items = (member.items[0] for member in shape.members if member.items)
    return next(items, None)


def variants(shape: Shape) -> dict[str, type[Section]]:
    """The sections of a discriminated union by their `kind`; empty for other shapes."""
    sections = [member.annotation for member in shape.members if _is_section(member)]
    if len(sections) < 2:
        return {}
    return {section.model_fields["kind"].default: section for section in sections}


def stage_kinds() -> dict[str, type[Section]]:
    """The sections that an entry below `stages` can be, by kind."""
    return variants(_bare(Stage))


def shape_at(root: type[Section], values: Any, path: KeyPath) -> Shape | None:
    """The shape of what `path` leads to, or None when no field is there.

    Args:
        root: The section that `values` should become.
        values: Unchecked values; they decide between the variants of a union by `kind`.
        path: Keys and positions from `root` on.
    """
    return _follow(root, values, path)[0]


def section_at(root: type[Section], values: Any, path: KeyPath) -> type[Section] | None:
    """The section that `path` leads to, or None when it leads to something else."""
    shape, inside = _follow(root, values, path)
    return None if shape is None else _chosen(shape, inside)


def _follow(root: type[Section], values: Any, path: KeyPath) -> tuple[Shape | None, Any]:
    shape: Shape | None = Shape(root)
    for key in path:
        if shape is None:
            break
        section = _chosen(shape, values)
        if section is not None:
            field = section.model_fields.get(str(key))
            shape = None if field is None else field_shape(field)
        else:
            shape = item_shape(shape)
        values = _child(values, key)
    return shape, values


def leaves(
    section: type[Section], prefix: tuple[str, ...] = (), default: Section | None = None
) -> Iterator[Leaf]:
    """All fields of a section and of the sections in it, except `kind`.

    Args:
        section: The section to walk.
        prefix: Put before each path.
        default: The section's own default where it is a field of another section.
    """
    for name, field in section.model_fields.items():
        shape, value = field_shape(field), field_default(field)
        if default is not None:
            value = getattr(default, name)
        if name == "kind":
            continue
        if shape.section is not None:
            inner = value if isinstance(value, Section) else None
            yield from leaves(shape.section, (*prefix, name), inner)
        else:
            required = field.is_required() and default is None
            yield Leaf((*prefix, name), shape, field_help(field), required, value)


def field_default(field: FieldInfo) -> Any:
    """The value of a field that is not given; None for a required one."""
    return None if field.is_required() else field.get_default(call_default_factory=True)


def field_help(field: FieldInfo) -> str:
    """What the string below the field says, on one line."""
    return " ".join((field.description or "").split())


def _chosen(shape: Shape, values: Any) -> type[Section] | None:
    by_kind = variants(shape)
    if by_kind:
        kind = values.get("kind") if isinstance(values, Mapping) else None
        return by_kind.get(kind) if isinstance(kind, str) else None
    return shape.section


def _child(values: Any, key: str | int) -> Any:
    if isinstance(values, Mapping):
        return values.get(key)
    if isinstance(values, list | tuple) and isinstance(key, int) and 0 <= key < len(values):
        return values[key]
    return None


def _bare(annotation: Any, metadata: tuple[Any, ...] = ()) -> Shape:
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata = (*more, *metadata)
    return Shape(annotation, metadata)


def _is_section(shape: Shape) -> bool:
    return isinstance(shape.annotation, type) and issubclass(shape.annotation, Section)


def _describe(shape: Shape) -> str:
    annotation = shape.annotation
    if annotation is type(None):
        return "null"
    names = {bool: "true or false", int: "an integer", float: "a number"}
    if annotation in names:
        return names[annotation] + _bounds(shape.metadata)
    if annotation is str:
        return "a reference" if "reference" in shape.metadata else "text" + _pattern(shape.metadata)
    if get_origin(annotation) is Literal:
        choices = [repr(choice) for choice in get_args(annotation)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if _is_section(shape):
        return f"a section with {', '.join(annotation.model_fields)}"
    if get_origin(annotation) is dict:
        return f"names, each with {shape.items[0].describe()}"
    return _describe_tuple(shape)


def _describe_tuple(shape: Shape) -> str:
    items = [item.describe() for item in shape.items]
    least = [m.min_length for m in shape.metadata if isinstance(m, annotated_types.MinLen)]
    if len(items) == 1:
        return f"a list{f' of at least {least[0]}' if least else ''}, each item {items[0]}"
    return f"a list of {len(items)}: {', '.join(items)}"


def _bounds(metadata: tuple[Any, ...]) -> str:
    words = []
    for bound in metadata:
        if isinstance(bound, annotated_types.Gt):
            words.append(f"above {bound.gt}")
        elif isinstance(bound, annotated_types.Ge):
            words.append(f"of at least {bound.ge}")
        elif isinstance(bound, annotated_types.Lt):
            words.append(f"below {bound.lt}")
        elif isinstance(bound, annotated_types.Le):
            words.append(f"of at most {bound.le}")
    return " " + " and ".join(words) if words else ""


def _pattern(metadata: tuple[Any, ...]) -> str:
    patterns = [m.pattern for m in metadata if isinstance(m, StringConstraints) and m.pattern]
    return f" that matches `{patterns[0]}`" if patterns else ""
