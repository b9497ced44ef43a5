"""Optional packages that a recipe's settings need, looked for before anything runs."""

from collections.abc import Iterable
from importlib.util import find_spec

from tutelage.config import Stage
from tutelage.errors import MissingExtraError

__all__ = ["require_extras"]


def require_extras(stages: Iterable[Stage]) -> None:
    """Refuses stages whose settings need a package that is not there.

    Raises:
        MissingExtraError: naming the extra that brings it.
    """
    for stage in stages:
        lora = getattr(stage, "lora", None)
        if lora is not None:
            _require("peft", "lora")
            if lora.quantise == "4bit":
                _require("bitsandbytes", "qlora")


def _require(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise MissingExtraError(package, extra)
