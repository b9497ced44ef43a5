"""Reads a YAML file into values, and remembers the line each of them stands on.

YAML 1.2 by ruamel: `1e-5` is a number, `on` is text, and a key given twice is an error
instead of a silent last word.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from tutelage.errors import ConfigError

__all__ = ["Document", "KeyPath", "dotted", "read_document", "read_value", "to_yaml"]

KeyPath = tuple[str | int, ...]
"""Where a value sits: keys of mappings and positions in lists, from the outside in."""


@dataclass(frozen=True)
class Document:
    """A YAML file: its values and their lines."""

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """The line of the value at `path`, or of the nearest one around it; 0 for the whole."""
        around = (path[:length] for length in range(len(path), 0, -1))
        return next((self.lines[part] for part in around if part in self.lines), 0)

    def place(self, path: KeyPath) -> str:
        """`file:line` of the value at `path`."""
        line = self.line(path)
        return f"{self.path}:{line}" if line else str(self.path)


def dotted(path: Sequence[str | int]) -> str:
    """The path as a person writes it: `stages.sft.batch.minibatch`."""
    return ".".join(map(str, path))


def read_document(path: Path) -> Document:
    """Reads a file whose top level is a mapping.

    Raises:
        ConfigError: the file is missing, not UTF-8, not YAML, or no mapping.
    """
    text = _read_text(path)
    try:
        root = _parser().compose(io.StringIO(text))
        values = _parser().load(text)
    except YAMLError as error:
        raise ConfigError(_syntax(path, error)) from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else f"a {type(values).__name__}"
        raise ConfigError(f"{path}: found {found}, expected keys with values, as in 'seed: 1'")
    try:
        return Document(path, _unshared(values), dict(_lines(root, ())))
    except RecursionError:
        raise ConfigError(f"{path}: an alias (*name) stands inside what it names") from None


def read_value(text: str) -> Any:
    """A value as it would be read from a YAML file: number, true, null, text, [a, b].

    Raises:
        ConfigError: the text is no YAML value.
    """
    try:
        return _parser().load(text)
    except YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{text!r} is not a YAML value: {problem}") from error


def to_yaml(values: Any) -> str:
    """Plain values as a YAML document, mappings in their order."""
    writer = _parser()
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.width = 100
    text = io.StringIO()
    writer.dump(values, text)
    return text.getvalue()


def _unshared(value: Any) -> Any:
    """A copy in which an alias is a value of its own: setting one leaves the others as they are."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _parser() -> YAML:
    return YAML(typ="safe", pure=True)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        folder = path.parent
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        close = get_close_matches(path.name, names, 1)
        hint = f" Did you mean {folder / close[0]}?" if close else ""
        raise ConfigError(f"{path} does not exist.{hint}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _syntax(path: Path, error: YAMLError) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        problem = " ".join(filter(None, (error.context, error.problem)))
        return f"{path}:{error.problem_mark.line + 1}: not valid YAML: {problem}"
    return f"{path}: not valid YAML: {str(error).splitlines()[0]}"


def _lines(node: Node | None, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield (*path, key.value), key.start_mark.line + 1
            yield from _lines(value, (*path, key.value))
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1
            yield from _lines(item, (*path, index))
