"""Keys and values of the rows that a decoder writes side by side."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["ColumnCache"]

_BLOCK = 32
"""Columns added at a time: adding one would copy everything at every token."""


@dataclass
class ColumnCache:
    """Keys and values of rows that all write into the same column.

        row 0   . . p p p y y y|          start 2
        row 1   p p p p p y y y|          start 0

    Prompts are padded on the left, so that one column takes the next token of every row.
    """

    keys: list[Float[Tensor, "rows heads columns size"]]
    """Of each layer."""
    values: list[Float[Tensor, "rows heads columns size"]]
    start: Int[Tensor, " rows"]
    """First column of each row."""
    starts: tuple[int, int]
    """The smallest and the largest of these, known here: to ask the device would wait for it."""
    end: int
    """Columns written so far; those behind are room for more."""

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drops all rows but those given, and the columns in front that none of them uses."""
        self.start = self.start[rows]
        first, last = torch.stack(self.start.aminmax()).tolist()
        self._change(lambda store: store[:, :, first : self.end][rows])
        self.start = self.start - first
        self.starts = 0, last - first
        self.end -= first

    def reserve(self) -> None:
        """Makes room for one more column."""
        if self.end == self.keys[0].shape[2]:
            self._change(_longer)

    def repeat(self, times: int) -> None:
        """Every row `times` times, side by side."""
        if times > 1:
            self.start = self.start.repeat_interleave(times)
            self._change(lambda store: store.repeat_interleave(times, 0))

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        self.keys = [change(store) for store in self.keys]
        self.values = [change(store) for store in self.values]


def _longer(store: Tensor) -> Tensor:
    """With room for more columns, which hold anything until they are written."""
    rows, heads, columns, size = store.shape
    longer = store.new_empty(rows, heads, columns + _BLOCK, size)
    longer[:, :, :columns] = store
    return longer
