"""Turns pydantic's errors into sentences that name key, value, what is allowed, and the fix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tutelage.config.base import Section
from tutelage.config.document import KeyPath, dotted
from tutelage.config.schema import (
    Shape,
    field_shape,
    item_shape,
    leaves,
    section_at,
    shape_at,
    variants,
)

__all__ = ["Fault", "explain"]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and where."""

    path: KeyPath
    message: str

    def __str__(self) -> str:
        """`path: message`; the path is missing where the whole is inconsistent."""
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


def explain(root: type[Section], values: Any, error: ValidationError) -> list[Fault]:
    """The faults in `values`, each once.

    A union reports every alternative that did not fit; they become one fault here.
    """
    details = error.errors(include_url=False)
    faults = [_fault(root, values, one) for one in details if not _follows_from_others(one)]
    return list(dict.fromkeys(faults))


def _follows_from_others(details: ErrorDetails) -> bool:
    # pydantic counts only the items that are right and then calls the list too short.
    if details["type"] != "too_short":
        return False
    return len(details["input"]) >= int(details["ctx"]["min_length"])


def _fault(root: type[Section], values: Any, details: ErrorDetails) -> Fault:
    path, kind = _path(root, details["loc"]), details["type"]
    if kind == "extra_forbidden":
        return Fault(path, _unknown_key(root, values, path, details["input"]))
    if kind == "missing":
        return Fault(path, _missing(root, values, path))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_kind(root, values, path, details)
    if details["loc"][-1:] == ("[key]",):
        allowed = "begin with a small letter; small letters, digits and _ may follow"
        return Fault(path, f"the name {details['input']!r} is not allowed: {allowed}")
    context = details.get("ctx", {})
    if kind == "value_error":
        return Fault(path, str(context["error"]))
    shape = shape_at(root, values, path)
    return Fault(path, _wrong_value(shape, details))


def _path(root: type[Section], location: Sequence[str | int]) -> KeyPath:
    """The location without what pydantic adds for the alternatives of a union."""
    shape: Shape | None = Shape(root)
    path: KeyPath = ()
    for part in location:
        if shape is None or part == "[key]":
            break
        by_kind = variants(shape)
        if by_kind:
            shape = Shape(by_kind[str(part)])
        elif shape.section is not None:
            path = (*path, part)
            field = shape.section.model_fields.get(str(part))
            shape = field_shape(field) if field else None
        elif shape.is_mapping or (shape.is_list and isinstance(part, int)):
            path = (*path, part)
            shape = item_shape(shape)
        else:
            break
    return path


def _unknown_key(root: type[Section], values: Any, path: KeyPath, found: Any) -> str:
    key, section = str(path[-1]), section_at(root, values, path[:-1])
    if section is None:
        return f"unknown key (found {_shown(found)})"
    hints = [repr(name) for name in _nearest(section, key)]
    hint = f" Did you mean {' or '.join(hints)}?" if hints else ""
    allowed = ", ".join(section.model_fields)
    return f"unknown key (found {_shown(found)}).{hint} Allowed: {allowed}"


def _nearest(section: type[Section], key: str) -> list[str]:
    close = get_close_matches(key, section.model_fields, 1)
    if close:
        return close
    inner = [leaf.path for leaf in leaves(section) if len(leaf.path) > 1]
    names = get_close_matches(key, {path[-1] for path in inner}, 1, cutoff=0.8)
    return [".".join(path) for path in inner if path[-1] in names][:3]


def _missing(root: type[Section], values: Any, path: KeyPath) -> str:
    shape = shape_at(root, values, path)
    allowed = f"; needed: {shape.describe()}" if shape else ""
    return f"missing{allowed}"


def _wrong_kind(root: type[Section], values: Any, path: KeyPath, details: ErrorDetails) -> Fault:
    shape = shape_at(root, values, path)
    kinds = list(variants(shape)) if shape else []
    found = details["input"].get("kind") if isinstance(details["input"], Mapping) else None
    if found is None:
        return Fault((*path, "kind"), f"missing; needed: one of {', '.join(kinds)}")
    close = get_close_matches(str(found), kinds, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    message = f"found {_shown(found)}, allowed: one of {', '.join(kinds)}.{hint}"
    return Fault((*path, "kind"), message)


def _wrong_value(shape: Shape | None, details: ErrorDetails) -> str:
    found = details["input"]
    if shape is None:
        return f"found {_shown(found)}: {details['msg']}"
    close = get_close_matches(str(found), [str(choice) for choice in shape.choices], 1)
    hint = f". Did you mean {close[0]!r}?" if close else ""
    return f"found {_shown(found)}, allowed: {shape.describe()}{hint}"


def _shown(value: Any) -> str:
    words = {"None": "null", "True": "true", "False": "false"}
    text = words.get(repr(value), repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
