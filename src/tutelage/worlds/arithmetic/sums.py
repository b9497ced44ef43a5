"""Sums of two numbers, dealt out to splits that do not overlap."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from typing import Literal

from tutelage.errors import DataError

__all__ = ["SPLITS", "Split", "Sum", "sums"]

Operator = Literal["+", "-"]
Split = Literal["train", "rl", "held_out", "test"]

SPLITS: Mapping[Split, float] = {"train": 0.5, "rl": 0.3, "held_out": 0.1, "test": 0.1}
"""Share of all sums in each split."""


_OPERATORS: tuple[Operator, ...] = ("+", "-")


@dataclass(frozen=True, slots=True)
class Sum:
    """An addition or a subtraction, written in columns: every number has its full width.

    A model of a few hundred thousand weights learns `07+38=045` from ten thousand sums within
    minutes, because a digit always stands in the same place, and `7 + 38 = 45` does not.
    """

    left: int
    operator: Operator
    right: int
    digits: int = 2
    """Width of the operands."""

    @property
    def text(self) -> str:
        """As it is asked: `47+38=`."""
        return f"{self.left:0{self.digits}d}{self.operator}{self.right:0{self.digits}d}="

    @property
    def answer(self) -> str:
        """The result as it is written: `085`, `-09`."""
        return f"{self.result:0{self.digits + 1}d}"

    @property
    def result(self) -> int:
        """Negative where more is taken away than there is."""
        return self.left + self.right if self.operator == "+" else self.left - self.right

    @property
    def split(self) -> Split:
        """Where it belongs, by the hash of its text."""
        position = int.from_bytes(sha256(self.text.encode()).digest()[:4]) / 2**32
        for split, share in SPLITS.items():
            position -= share
            if position < 0:
                return split
        return "test"


def sums(split: Split, digits: int, count: int | None, seed: int) -> list[Sum]:
    """`count` different sums of a split, in random order; all of them where it is None.

    Args:
        split: which part of all sums.
        digits: of the operands, leading zeros included.
        count: how many, or None.
        seed: of the order.

    Raises:
        DataError: the split has fewer.
    """
    numbers = range(10**digits)
    found = [
        each
        for left, operator, right in product(numbers, _OPERATORS, numbers)
        if (each := Sum(left, operator, right, digits)).split == split
    ]
    count = len(found) if count is None else count
    if count > len(found):
        raise DataError(
            f"there are {len(found)} sums of {digits} digits in split {split!r}, found a wish for "
            f"{count}: lower it or raise digits"
        )
    return random.Random(f"sums {split} {digits} {seed}").sample(found, count)
