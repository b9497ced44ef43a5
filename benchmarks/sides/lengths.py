"""Prompts and how long each answer must be: the same on all sides, from a seed.

Standard library only.
"""

import math
import random
from collections.abc import Sequence

__all__ = ["answers", "forced_lengths", "prompts"]


def forced_lengths(count: int, longest: int, seed: int) -> list[int]:
    """Answer lengths in tokens, end included: min(max, max(4, lognormal(ln 0.3 max, 0.6)))."""
    draw = random.Random(seed)
    return [
        min(longest, max(4, int(draw.lognormvariate(math.log(0.3 * longest), 0.6))))
        for _ in range(count)
    ]


def prompts(
    count: int, shortest: int, longest: int, words: Sequence[int], seed: int
) -> list[list[int]]:
    """Random token ids, lengths uniform between the bounds; no two prompts are alike."""
    draw = random.Random(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        length = draw.randint(shortest, longest)
        found[tuple(draw.choices(words, k=length))] = None
    return [list(ids) for ids in found]


def answers(lengths: Sequence[int], words: Sequence[int], end: int, seed: int) -> list[list[int]]:
    """Random answers of the given lengths, each closed by the end token."""
    draw = random.Random(seed)
    return [[*draw.choices(words, k=length - 1), end] for length in lengths]
