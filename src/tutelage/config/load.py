"""From files and options to checked recipes and sections.

recipe.yaml ──> values ──overrides──> Recipe
                  └── wrong ──> ConfigError: file:line: key: found, allowed, nearest key
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tutelage.config.base import Section
from tutelage.config.document import Document, KeyPath, dotted, read_document
from tutelage.config.explain import Fault, explain
from tutelage.config.overrides import apply_overrides, parse_overrides, write_value
from tutelage.config.recipe import Recipe
from tutelage.errors import ConfigError

__all__ = ["build_section", "load_recipe", "load_section"]

_AnySection = TypeVar("_AnySection", bound=Section)


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and changes it by options.

    Args:
        path: A YAML file.
        overrides: Tokens as on the command line: `["--sft.epochs", "2"]`. A key path
            begins with a key of the recipe or with the name of a stage.

    Raises:
        ConfigError: listing everything that is wrong, each with file and line, key, the
            value found, what is allowed and the nearest valid key.
    """
    document = read_document(Path(path))
    written = apply_overrides(Recipe, document.values, parse_overrides(overrides))
    return _build(Recipe, document.values, document, written)


def load_section(
    model: type[_AnySection], path: Path | None, given: Mapping[KeyPath, Any]
) -> _AnySection:
    """Reads a section from a file, from values given as options, or from both; options win.

    Raises:
        ConfigError: as `load_recipe`.
    """
    document = read_document(path) if path else None
    values: dict[str, Any] = document.values if document else {}
    written = {key: f"--{dotted(key).replace('_', '-')}" for key in given}
    for key, value in given.items():
        write_value(values, key, value, written[key])
    return _build(model, values, document, written)


def build_section(model: type[_AnySection], values: Mapping[str, Any]) -> _AnySection:
    """Checks values given in Python.

    Raises:
        ConfigError: listing everything that is wrong, by key.
    """
    return _build(model, dict(values), None, {})


def _build(
    model: type[_AnySection],
    values: dict[str, Any],
    document: Document | None,
    written: Mapping[KeyPath, str],
) -> _AnySection:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = explain(model, values, error)
    if document:
        faults.sort(key=lambda fault: document.line(fault.path))
    raise ConfigError("\n".join(_placed(fault, document, written) for fault in faults))


def _placed(fault: Fault, document: Document | None, written: Mapping[KeyPath, str]) -> str:
    for path, option in written.items():
        if fault.path[: len(path)] == path:
            return f"{option}: {fault}"
    return f"{document.place(fault.path)}: {fault}" if document else str(fault)
