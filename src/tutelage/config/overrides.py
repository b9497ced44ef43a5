"""Settings given as options: `--sft.epochs 2`, `--inputs.reviews a.gz,b.gz`.

An option is a key path. In a recipe the name of a stage may come first, without
`stages.` before it. Values are read as in a YAML file, except where the field is text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from tutelage.config.base import Section
from tutelage.config.document import KeyPath, dotted, read_value
from tutelage.config.recipe import Recipe
from tutelage.config.schema import Shape, item_shape, leaves, shape_at, stage_kinds
from tutelage.errors import ConfigError

__all__ = ["Override", "apply_overrides", "parse_overrides", "write_value"]


@dataclass(frozen=True)
class Override:
    """One option and its values, as typed."""

    key: str
    texts: tuple[str, ...]

    @property
    def option(self) -> str:
        """The option as the user sees it."""
        return f"--{self.key}"


def parse_overrides(tokens: Sequence[str]) -> list[Override]:
    """Splits command-line tokens; an option that is repeated collects its values.

    Raises:
        ConfigError: a token belongs to no option, or an option has no value.
    """
    found: dict[str, list[str]] = {}
    key = ""
    for token in tokens:
        if token.startswith("--") and len(token) > 2:
            key, equals, text = token[2:].partition("=")
            found.setdefault(key, []).extend([text] if equals else [])
        elif key:
            found[key].append(token)
        else:
            raise ConfigError(
                f"found {token!r}, expected an option before it, as in --stage.key {token}"
            )
    for name, texts in found.items():
        if not texts:
            raise ConfigError(f"--{name} has no value: write --{name} VALUE")
    return [Override(name, tuple(texts)) for name, texts in found.items()]


def apply_overrides(
    root: type[Section], values: dict[str, Any], overrides: Iterable[Override]
) -> dict[KeyPath, str]:
    """Writes the overrides into `values`, in place.

    Returns:
        The option behind each path that was written.

    Raises:
        ConfigError: an option leads nowhere, or takes one value and has several.
    """
    written = {}
    for override in overrides:
        path = _path(root, values, override)
        value = _value(override, shape_at(root, values, path))
        write_value(values, path, value, override.option)
        written[path] = override.option
    return written


def _path(root: type[Section], values: Mapping[str, Any], override: Override) -> KeyPath:
    keys = override.key.split(".")
    if root is Recipe:
        keys = _expand_stage(values, keys, override)
    path: KeyPath = ()
    for key in keys:
        path = (*path, _spelling(shape_at(root, values, path), values, key))
    return path


def _expand_stage(values: Mapping[str, Any], keys: list[str], override: Override) -> list[str]:
    stages = values.get("stages")
    stages = stages if isinstance(stages, Mapping) else {}
    first = keys[0].replace("-", "_")
    if first == "inputs":
        _check_input(values, keys, override)
    if first in Recipe.model_fields:
        return keys
    if first in stages:
        return ["stages", first, *keys[1:]]
    raise ConfigError(_unknown_stage(stages, override))


def _check_input(values: Mapping[str, Any], keys: list[str], override: Override) -> None:
    known = list(values.get("inputs") or {})
    if len(keys) > 1 and keys[1] not in known:
        close = get_close_matches(keys[1], known, 1)
        hint = f". Did you mean --inputs.{close[0]}?" if close else ""
        raise ConfigError(
            f"{override.option}: the recipe has no such input, it has: "
            f"{', '.join(known) or 'none'}{hint}"
        )


def _unknown_stage(stages: Mapping[str, Any], override: Override) -> str:
    by_kind = stage_kinds()
    wanted = override.key.replace("-", "_").split(".")
    holders = [
        f"--{name}.{override.key}"
        for name, stage in stages.items()
        if isinstance(stage, Mapping) and wanted[0] in _fields(by_kind.get(str(stage.get("kind"))))
    ]
    close = get_close_matches(wanted[0], [*stages, *Recipe.model_fields], 1)
    options = holders or [".".join([f"--{name}", *wanted[1:]]) for name in close]
    hint = f" Did you mean {' or '.join(options)}?" if options else ""
    return (
        f"{override.option}: {wanted[0]!r} is neither a stage ({', '.join(stages)}) nor a key of "
        f"the recipe ({', '.join(Recipe.model_fields)}).{hint}"
    )


def _fields(section: type[Section] | None) -> set[str]:
    return {leaf.path[0] for leaf in leaves(section)} if section else set()


def _spelling(shape: Shape | None, values: Mapping[str, Any], key: str) -> str | int:
    if shape is None or shape.is_mapping:
        return key
    if shape.is_list and key.isdecimal():
        return int(key)
    return key.replace("-", "_")


def _value(override: Override, shape: Shape | None) -> Any:
    if shape is not None and shape.is_list:
        return _list(override.texts, shape)
    if len(override.texts) != 1:
        raise ConfigError(
            f"{override.option}: found {len(override.texts)} values "
            f"({' '.join(override.texts)}), one is allowed"
        )
    text = override.texts[0]
    if shape is not None and shape.is_text:
        return None if text == "null" and shape.allows_null else text
    return read_value(text)


def _list(texts: Sequence[str], shape: Shape) -> Any:
    if len(texts) == 1 and (texts[0].startswith("[") or texts[0] == "null"):
        return read_value(texts[0])
    item = item_shape(shape)
    parts = [part for text in texts for part in text.split(",") if part]
    return [part if item is not None and item.is_text else read_value(part) for part in parts]


def write_value(values: Any, path: KeyPath, value: Any, option: str) -> None:
    """Writes `value` at `path` into nested mappings and lists, which it creates where absent.

    Raises:
        ConfigError: naming `option`, when something on the way holds a value already.
    """
    for position, key in enumerate(path[:-1]):
        child = _get(values, key)
        if child is None:
            child = [] if isinstance(path[position + 1], int) else {}
            _set(values, key, child, option)
        elif not isinstance(child, dict | list):
            raise ConfigError(
                f"{option}: {dotted(path[: position + 1])} is {child!r}, nothing can be set "
                "inside it"
            )
        values = child
    _set(values, path[-1], value, option)


def _get(values: Any, key: str | int) -> Any:
    if isinstance(values, list):
        return values[key] if isinstance(key, int) and key < len(values) else None
    return values.get(key)


def _set(values: Any, key: str | int, value: Any, option: str) -> None:
    if isinstance(values, dict) or (isinstance(key, int) and key < len(values)):
        values[key] = value
    elif key == len(values):
        values.append(value)
    else:
        raise ConfigError(
            f"{option}: the list has {len(values)} items, {key} is none of 0 to "
            f"{len(values)}, counted from 0"
        )
