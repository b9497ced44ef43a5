"""Answer lengths by decree, in one formula for all sides.

The end token is forbidden before a row's length and is the only one allowed at it. Padding is
forbidden too: peers would take it for the end.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import LogitsProcessor

from benchmarks.sides.shapes import END, PAD

__all__ = ["ForcedLengths", "force"]


def force(logits: Tensor, last: Tensor) -> Tensor:
    """Makes rows end now, where `last` is true, and keeps the others from ending.

    Args:
        logits: `[rows, vocabulary]`, changed in place and returned.
        last: `[rows]`, whether the row's next token is its last.
    """
    logits.masked_fill_(last[:, None], -torch.inf)
    logits[:, PAD] = -torch.inf
    logits[:, END] = torch.where(last, 0.0, -torch.inf).to(logits.dtype)
    return logits


class ForcedLengths(LogitsProcessor):
    """`force` as transformers' `generate` takes it; serves one call after the other."""

    def __init__(self, lengths: Mapping[tuple[int, ...], int]) -> None:
        """Answer length by prompt; rows are recognised by their left-padded prompts."""
        self.lengths = lengths
        self._seen = self._width = 0
        self._last = torch.zeros(0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Shapes the scores of the next token."""
        width = input_ids.shape[1]
        if width != self._seen + 1:
            self._width = width
            ends = [self.lengths[_without_padding(row)] for row in input_ids.tolist()]
            self._last = torch.tensor(ends, device=scores.device) - 1
        self._seen = width
        return force(scores, self._last == width - self._width)


def _without_padding(row: list[int]) -> tuple[int, ...]:
    start = next(i for i, token in enumerate(row) if token != PAD)
    return tuple(row[start:])
