"""The verifiers by the names that recipes use: `final_number`, `regex:PATTERN`."""

from collections.abc import Callable, Mapping
from functools import partial

from tutelage.errors import ConfigError
from tutelage.rewards.verifiers.choice import Choice
from tutelage.rewards.verifiers.constraints import Constraints
from tutelage.rewards.verifiers.exact import Exact
from tutelage.rewards.verifiers.json_schema import JsonSchema
from tutelage.rewards.verifiers.maths import Maths
from tutelage.rewards.verifiers.number import FinalNumber
from tutelage.rewards.verifiers.regex import Regex
from tutelage.rewards.verifiers.sandboxed_tests import sandboxed_python_tests
from tutelage.rewards.verifiers.verifier import Verifier

__all__ = ["VERIFIERS", "load_verifier", "verifier_label"]

VERIFIERS: Mapping[str, Callable[[], Verifier]] = {
    "final_number": FinalNumber,
    "maths": Maths,
    "choice": Choice,
    "exact": Exact,
    "python_tests": sandboxed_python_tests,
    "constraints": Constraints,
    "constraints_share": partial(Constraints, share=True),
}
"""Verifiers that need nothing but the prompt."""

WITH_ARGUMENT: Mapping[str, Callable[[str], Verifier]] = {"regex": Regex, "json_schema": JsonSchema}
"""Verifiers whose argument follows a colon."""


def load_verifier(name: str) -> Verifier:
    """The verifier of a recipe.

    Raises:
        ConfigError: there is none of that name, or its argument is missing or of no use.
        MissingExtraError: it needs a library that is not installed.
        SandboxUnavailable: it runs code, and a layer of the sandbox is missing here.
    """
    kind, colon, argument = name.partition(":")
    if colon and kind in WITH_ARGUMENT:
        return WITH_ARGUMENT[kind](argument)
    if not colon and kind in VERIFIERS:
        return VERIFIERS[kind]()
    known = [*VERIFIERS, *(f"{each}:ARGUMENT" for each in WITH_ARGUMENT)]
    raise ConfigError(f"found verifier {name!r}, expected one of {', '.join(known)}")


def verifier_label(name: str) -> str:
    """What the part of the reward is called in logs: the name without its argument."""
    return name.partition(":")[0]
