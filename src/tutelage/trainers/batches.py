"""Batches in random order, from a place that can be saved and taken up again.

order of all items ──batch by batch──> empty ──> a new order, and so on
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch

from tutelage.errors import CheckpointError

__all__ = ["Shuffled"]

Item = TypeVar("Item")


class Shuffled(Generic[Item]):
    """`steps` lists of `size` items, each item once before any comes again.

    Iterating goes on from where the last iteration, or a loaded state, has got to.
    """

    def __init__(
        self, items: Sequence[Item], size: int, steps: int, generator: torch.Generator
    ) -> None:
        """Draws nothing yet; `generator` makes the orders."""
        self.items = items
        self.size = size
        self.steps = steps
        self.generator = generator
        self.taken = 0
        """Batches handed out so far."""
        self._order: list[int] = []

    def __iter__(self) -> Iterator[list[Item]]:
        """The batches that are left."""
        while self.taken < self.steps:
            batch = self._next()
            self.taken += 1
            yield batch

    def extra(self) -> list[Item]:
        """A further batch beside those that are counted; its items have had their turn."""
        return self._next()

    def _next(self) -> list[Item]:
        while len(self._order) < self.size:
            self._order += self._permutation()
        chosen, self._order = self._order[: self.size], self._order[self.size :]
        return [self.items[i] for i in chosen]

    def _permutation(self) -> list[int]:
        order: list[int] = torch.randperm(len(self.items), generator=self.generator).tolist()
        return order

    def state_dict(self) -> dict[str, Any]:
        """How far it has got; the items themselves belong to the data."""
        return {
            "items": len(self.items),
            "taken": self.taken,
            "order": list(self._order),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            CheckpointError: it is the state of another number of items.
        """
        if state["items"] != len(self.items):
            raise CheckpointError(
                f"it was made with {state['items']} rows of data and there are {len(self.items)}"
            )
        self.taken = state["taken"]
        self._order = list(state["order"])
        self.generator.set_state(state["generator"])
