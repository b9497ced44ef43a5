"""In which order the sides take turns.

Two sides run A B, B A, A B ...: each is first as often as last, so a machine that slowly
warms up or fills with other work favours neither.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["rounds"]

Item = TypeVar("Item")


def rounds(sides: Sequence[Item], repeats: int) -> Iterator[tuple[int, Item]]:
    """(round, side) in the order ABBAAB...; with three sides ABCCBAABC..."""
    for number in range(repeats):
        ordered = sides if number % 2 == 0 else list(reversed(sides))
        for side in ordered:
            yield number, side
