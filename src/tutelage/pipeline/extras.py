"""The optional packages that stages need, asked for before the first of them runs.

A recipe that takes an hour to reach the stage that needs a package must not fail there.
"""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from tutelage.config import EndpointConfig, LoRAConfig, OptimizerConfig, Stage
from tutelage.config.base import Section
from tutelage.errors import MissingExtraError

__all__ = ["require_extras"]


def require_extras(stages: Iterable[Stage]) -> None:
    """Looks for the packages without importing them.

    Raises:
        MissingExtraError: one is not installed.
    """
    for section in _sections(list(stages)):
        if isinstance(section, OptimizerConfig) and section.algorithm == "adamw8bit":
            _require("bitsandbytes", "optimizers")
        if isinstance(section, LoRAConfig):
            _require("peft", "lora")
            if section.quantise == "4bit":
                _require("bitsandbytes", "qlora")
        if isinstance(section, EndpointConfig):
            _require("openai", "judge")


def _sections(value: Any) -> Iterator[Section]:
    """Every section in a value, at any depth."""
    if isinstance(value, Section):
        yield value
        value = [item for _, item in value]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _sections(item)


def _require(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise MissingExtraError(package, extra)
