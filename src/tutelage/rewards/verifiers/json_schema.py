"""The form of an answer by a JSON schema: `json_schema:schema.json`.

The answer is one JSON value, perhaps in a fenced block, and nothing else.
"""

import json
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, MissingExtraError
from tutelage.records import Prompt, Score
from tutelage.rewards.verifiers.fences import fenced_blocks
from tutelage.rewards.verifiers.verifier import verdict

__all__ = ["JsonSchema", "json_value"]

_LONGEST = 1_000_000
"""Characters; reading more would take longer than anyone waits for a verdict."""


class JsonSchema:
    """Right when the answer is a JSON value of the schema."""

    at_once = 1

    def __init__(self, path: str) -> None:
        """Args: a file with the schema.

        Raises:
            ConfigError: the file is missing, or holds no schema.
            MissingExtraError: jsonschema is not installed.
        """
        try:
            from jsonschema.exceptions import SchemaError
            from jsonschema.validators import validator_for
        except ImportError as error:
            raise MissingExtraError("jsonschema", "verifiers") from error
        try:
            schema = json.loads(Path(path).read_text(encoding="utf-8"))
            kind = validator_for(schema)
            kind.check_schema(schema)
        except (OSError, ValueError, SchemaError) as error:
            raise ConfigError(f"json_schema:{path}: {error}") from error
        self._validator: Any = kind(schema)

    def verify(self, prompt: Prompt, text: str) -> Score:
        """1 or 0; the prompt is not looked at."""
        try:
            value = json_value(text)
        except ValueError as error:
            return verdict(False, f"no JSON: {error}")
        return verdict(self._validator.is_valid(value))


def json_value(text: str) -> Any:
    """The one JSON value that an answer is made of.

    Raises:
        ValueError: it is not.
    """
    blocks = fenced_blocks(text)
    inside = blocks[0].code if len(blocks) == 1 and blocks[0].alone else text
    if len(inside) > _LONGEST:
        raise ValueError(f"{len(inside)} characters, {_LONGEST} at most are read")
    try:
        return json.loads(inside, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
