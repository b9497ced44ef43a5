"""Several sequences that begin alike in one row: what they share is read once.

    row        p p p | a a | b b b | . .        shared prefix, the rest of a, of b, padding
    position   0 1 2 | 3 4 | 3 4 5 | . .        as if each stood alone
    attention  a sees p and a, b sees p and b, neither sees the other

K answers of n tokens to a prompt of m tokens cost m + K n tokens instead of K (m + n).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["SharedPrefixRows", "shared_length"]

Group = Sequence[Sequence[int]]
"""Token ids of sequences that share a row."""


def _prefix_length(group: Group) -> int:
    """Tokens that all begin with, of which each sequence has one more at least."""
    longest = min(map(len, group)) - 1
    columns = zip(*(ids[:longest] for ids in group), strict=True)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def shared_length(group: Group) -> int:
    """Tokens of the row that a group makes."""
    prefix = _prefix_length(group)
    return prefix + sum(len(ids) - prefix for ids in group)


@dataclass(frozen=True)
class SharedPrefixRows:
    """One row for each group of sequences."""

    tokens: Int[Tensor, "rows time"]
    positions: Int[Tensor, "rows time"]
    segment: Int[Tensor, "rows time"]
    """0 for the prefix, 1, 2 ... for the sequences, -1 for padding."""
    row: Int[Tensor, " sequences"]
    """The row of each sequence, group by group."""
    last: Int[Tensor, " sequences"]
    """Where in its row each sequence ends."""

    @classmethod
    def collate(
        cls, groups: Sequence[Group], *, pad: int, device: torch.device | str = "cpu"
    ) -> Self:
        """Lays the groups out in rows, padded on the right with `pad`."""
        shape = (len(groups), max(map(shared_length, groups)))
        tokens = torch.full(shape, pad, dtype=torch.long)
        positions = torch.zeros(shape, dtype=torch.long)
        segment = torch.full(shape, -1, dtype=torch.long)
        row, last = [], []
        for i, group in enumerate(groups):
            prefix = end = _prefix_length(group)
            tokens[i, :prefix] = torch.tensor(group[0][:prefix])
            positions[i, :prefix] = torch.arange(prefix)
            segment[i, :prefix] = 0
            for number, ids in enumerate(group, 1):
                start, end = end, end + len(ids) - prefix
                tokens[i, start:end] = torch.tensor(ids[prefix:])
                positions[i, start:end] = torch.arange(prefix, len(ids))
                segment[i, start:end] = number
                row.append(i)
                last.append(end - 1)
        tensors = (tokens, positions, segment, torch.tensor(row), torch.tensor(last))
        return cls(*(tensor.to(device) for tensor in tensors))

    def additive_mask(self, dtype: torch.dtype) -> Float[Tensor, "rows 1 time time"]:
        """0 where a token may look, the lowest number elsewhere."""
        time = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        looking, seen = self.segment[:, :, None], self.segment[:, None, :]
        allowed = (time[None, :] <= time[:, None]) & ((seen == 0) | (seen == looking))
        lowest = torch.finfo(dtype).min
        return torch.where(allowed, 0.0, lowest).to(dtype)[:, None]
