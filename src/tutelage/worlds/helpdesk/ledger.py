"""What labels cost: a person's label 11 units, an AI judge's 1."""

from dataclasses import dataclass, field
from typing import Literal

from tutelage.errors import ConfigError

__all__ = ["UNIT_COSTS", "Ledger"]

Source = Literal["human", "ai"]

UNIT_COSTS: dict[Source, int] = {"human": 11, "ai": 1}
"""Units per labelled pair."""


@dataclass(slots=True)
class Ledger:
    """Counts the labels bought, and refuses what the budget does not cover."""

    budget: int | None = None
    """Units to spend; None for no limit."""
    labels: dict[Source, int] = field(default_factory=lambda: {"human": 0, "ai": 0})

    @property
    def spent(self) -> int:
        """Units spent so far."""
        return sum(UNIT_COSTS[source] * count for source, count in self.labels.items())

    def affordable(self, source: Source) -> int | None:
        """How many more labels of this source the budget covers; None for no limit."""
        return None if self.budget is None else (self.budget - self.spent) // UNIT_COSTS[source]

    def charge(self, source: Source, count: int) -> None:
        """Books `count` labels; raises ConfigError, and books nothing, beyond the budget."""
        limit = self.affordable(source)
        if limit is not None and count > limit:
            raise ConfigError(
                f"{count} {source} labels cost {count * UNIT_COSTS[source]} units, but "
                f"{self.spent} of {self.budget} are spent: ask for at most {limit}, or raise "
                "the budget"
            )
        self.labels[source] += count
