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

__all__ = ["Leaf", "Shape", "field_shape", "item_shape", "leaves", "section_at", "variants"]


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
    def is_list(self) -> bool:
        """Whether the value is a list of any length of one shape."""
        return any(_is_list(member) for member in self.members)

    @property
    def is_mapping(self) -> bool:
        """Whether the value has keys of the user's choice."""
        return any(get_origin(member.annotation) is dict for member in self.members)

    @property
    def is_text(self) -> bool:
        """Whether text needs no reading: nothing but text is allowed, or null."""
        kinds = {member.annotation for member in self.members} - {type(None)}
        return kinds == {str}

    def describe(self) -> str:
        """What is allowed, in words."""
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
    for member in shape.members:
        arguments = get_args(member.annotation)
        if get_origin(member.annotation) is dict:
            return _bare(arguments[1])
        if get_origin(member.annotation) is tuple:
            return _bare(arguments[0])
    return None


def variants(shape: Shape) -> dict[str, type[Section]]:
    """The sections of a discriminated union by their `kind`; empty for other shapes."""
    sections = [member.annotation for member in shape.members if _is_section(member)]
    if len(sections) < 2:
        return {}
    return {section.model_fields["kind"].default: section for section in sections}


def section_at(root: type[Section], values: Any, path: KeyPath) -> Shape | None:
    """The shape of what `path` leads to, or None when no field is there.

    Args:
        root: The section that `values` should become.
        values: Unchecked values; they decide between the variants of a union by `kind`.
        path: Keys and positions from `root` on.
    """
    shape: Shape | None = Shape(root)
    for key in path:
        if shape is None:
            return None
        section = _chosen(shape, values)
        if section is not None:
            field = section.model_fields.get(str(key))
            shape = None if field is None else field_shape(field)
        else:
            shape = item_shape(shape)
        values = _child(values, key)
    return shape


def leaves(section: type[Section], prefix: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """All fields of a section and of the sections in it, except `kind`."""
    for name, field in section.model_fields.items():
        shape = field_shape(field)
        if name == "kind":
            continue
        if shape.section is not None:
            yield from leaves(shape.section, (*prefix, name))
        else:
            yield Leaf(
                (*prefix, name),
                shape,
                " ".join((field.description or "").split()),
                field.is_required(),
                None if field.is_required() else field.get_default(call_default_factory=True),
            )


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


def _is_list(shape: Shape) -> bool:
    arguments = get_args(shape.annotation)
    return get_origin(shape.annotation) is tuple and arguments[-1:] == (Ellipsis,)


def _describe(shape: Shape) -> str:
    annotation = shape.annotation
    names = {type(None): "null", bool: "true or false", int: "an integer", float: "a number"}
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
        return f"names, each with {_bare(get_args(annotation)[1]).describe()}"
    return _describe_tuple(annotation)


def _describe_tuple(annotation: Any) -> str:
    items = [_bare(item).describe() for item in get_args(annotation) if item is not Ellipsis]
    if len(items) == 1:
        return f"a list, each item {items[0]}"
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
    return f" that matches {patterns[0]}" if patterns else ""
