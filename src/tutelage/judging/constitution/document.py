"""Constitutions: principles in a YAML file, known by the SHA-256 of its bytes.

    name: library desk
    preamble: You work at the desk of a public library.
    principles:
      - id: say-where
        critique: Does the answer say where the book stands? Name what is missing.
        revision: Rewrite the answer so that it says where the book stands.
        question: Which answer says more exactly where the book stands?

Source of the form: Bai et al. 2022 (arXiv:2212.08073), where a principle is a critique request
and a revision request, and in the second phase a question about two answers.
"""

from difflib import get_close_matches
from pathlib import Path
from random import Random
from typing import Annotated

from pydantic import Field, PositiveFloat, StringConstraints, field_validator

from tutelage.config.base import Section
from tutelage.config.load import load_section
from tutelage.errors import ConfigError
from tutelage.tracking.fingerprint import file_fingerprint

__all__ = [
    "BUNDLED",
    "Constitution",
    "ConstitutionFile",
    "Principle",
    "load_constitution",
]

_FOLDER = Path(__file__).with_name("bundled")
BUNDLED = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
"""Names of the constitutions that come with the package."""

_Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$", max_length=64)]


class Principle(Section):
    """One thing to ask of an answer, in three wordings."""

    id: _Id
    """Small letters, digits and hyphens; what provenance names."""
    critique: _Words
    """Asks what is wrong with the last answer."""
    revision: _Words
    """Asks for a better answer."""
    question: _Words
    """Asks which of two answers is better."""
    category: str = ""
    """What it is about, such as accuracy or tone: for tables, and for rules that stand in for a
    model."""
    weight: PositiveFloat = 1.0
    """How often it is drawn, relative to the others."""


class ConstitutionFile(Section):
    """What a constitution's file says."""

    name: _Words
    """What people call it."""
    preamble: str = ""
    """Said first to whoever criticises, revises and compares: who they are and whom they serve."""
    principles: Annotated[tuple[Principle, ...], Field(min_length=1)]

    @field_validator("principles")
    @classmethod
    def _ids_are_unique(cls, principles: tuple[Principle, ...]) -> tuple[Principle, ...]:
        ids = [principle.id for principle in principles]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"the id {twice[0]!r} occurs twice: provenance could not tell which")
        return principles


class Constitution:
    """A constitution's file, and which version of it."""

    def __init__(self, file: ConstitutionFile, sha256: str) -> None:
        """Keeps what the file says.

        Args:
            file: name, preamble and principles.
            sha256: of the file's bytes, hexadecimal.
        """
        self.name = file.name
        self.preamble = file.preamble.strip()
        self.principles = file.principles
        self.sha256 = sha256

    def order(self, key: str) -> list[Principle]:
        """All principles in a random order that depends on `key` and the constitution alone.

        Those of higher weight tend to come first: the first is each with probability
        weight / sum of weights, the next likewise among the rest.
        """
        # The earliest of independent exponential clocks is each by its share of the rates.
        random = Random(key)
        clocks = {each.id: random.expovariate(each.weight) for each in self.principles}
        return sorted(self.principles, key=lambda principle: clocks[principle.id])


def load_constitution(source: str | Path) -> Constitution:
    """Reads a bundled constitution by its name, or a file that ends in `.yaml` or `.yml`.

    Raises:
        ConfigError: there is none of that name, or the file has faults: each with file and line.
    """
    path = _path(str(source))
    file = load_section(ConstitutionFile, path, {})
    return Constitution(file, file_fingerprint(path))


def _path(source: str) -> Path:
    if source.endswith((".yaml", ".yml")):
        return Path(source).expanduser()
    if source in BUNDLED:
        return _FOLDER / f"{source}.yaml"
    close = get_close_matches(source, BUNDLED, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"no constitution is called {source!r}: choose from {', '.join(BUNDLED)}, or give a file "
        f"that ends in .yaml.{hint}"
    )
