"""What every stage of a recipe has, and what it reads."""

from collections.abc import Iterator
from typing import Annotated

from tutelage.config.base import Section

__all__ = ["Reference", "StageSection"]

Reference = Annotated[str, "reference"]
"""The output of another stage, a user's input, or a path."""


class StageSection(Section):
    """A stage: its seed, and its references."""

    seed: int | None = None
    """Seed of this stage; unset derives it from the recipe's seed and the stage's name."""

    def references(self) -> Iterator[str]:
        """What the stage reads, in the order of its fields."""
        yield from ()

    def files(self) -> Iterator[tuple[str, str]]:
        """Files of the user's own that say what the stage does: the key that names each, and it."""
        yield from ()
