"""Keys and values of the rows that a decoder writes side by side."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["WORTH_COPYING", "ColumnCache"]

WORTH_COPYING = 0.25
"""Share of a batch that must have ended before its rows are worth a copy of those that go on, for
who finds rows in order only."""
_BLOCK = 32
"""Columns added at a time: adding one would copy everything at every token."""


@dataclass
class ColumnCache:
    """Keys and values of rows that all write into the same column.

        row 0   . . p p p y y y|          start 2
        row 1   p p p p p y y y|          start 0

    Prompts are padded on the left, so that one column takes the next token of every row. Rows that
    leave stay behind in the stores until these are copied anyway.
    """

    keys: list[Float[Tensor, "places heads columns size"]]
    """Of each layer."""
    values: list[Float[Tensor, "places heads columns size"]]
    start: Int[Tensor, " rows"]
    """First column of each row."""
    starts: tuple[int, int]
    """The smallest and the largest of these, known here: to ask the device would wait for it.
    Once rows have left, and until they are closed up, bounds."""
    end: int
    """Columns written so far; those behind are room for more."""
    place: Int[Tensor, " rows"]
    """Where each row lies in the stores."""
    closed: bool = True
    """Whether they lie there in order, with nothing between them."""

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drops all rows but those given, each once; nothing is copied."""
        self.start, self.place = self.start[rows], self.place[rows]
        self.closed = False

    def close_up(self) -> None:
        """Lets rows lie in order."""
        if not self.closed:
            self._move()

    def reserve(self) -> None:
        """Makes room for one more column."""
        if self.end == self.keys[0].shape[2]:
            self._move()

    def repeat(self, times: int) -> None:
        """Every row `times` times, side by side."""
        self.close_up()
        if times > 1:
            self.start = self.start.repeat_interleave(times)
            self.place = torch.arange(len(self.start), device=self.start.device)
            self._change(lambda store: store.repeat_interleave(times, 0))

    def _move(self) -> None:
        """Into new stores: rows in order, no column in front that none of them uses, and room."""
        first, last = self.starts
        if not self.closed:
            first, last = torch.stack(self.start.aminmax()).tolist()
        self._change(lambda store: self._copied(store, first))
        self.start = self.start - first
        self.starts, self.end = (0, last - first), self.end - first
        self.place, self.closed = torch.arange(len(self.start), device=self.start.device), True

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        """Layer by layer, so that no more than one is there twice."""
        for stores in (self.keys, self.values):
            for layer in range(len(stores)):
                stores[layer] = change(stores[layer])

    def _copied(self, store: Tensor, first: int) -> Tensor:
        """Columns behind hold anything until they are written."""
        _, heads, _, size = store.shape
        used = store[:, :, first : self.end]
        copy = store.new_empty(len(self.place), heads, used.shape[2] + _BLOCK, size)
        copy[:, :, : used.shape[2]] = used if self.closed else used[self.place]
        return copy
