"""What is read, imitated and asked about sums."""

import random

from tutelage.records import Demonstration, Message, Prompt
from tutelage.worlds.arithmetic.sums import Split, Sum, sums

__all__ = ["demonstrations", "documents", "prompts"]

_PER_DOCUMENT = 8


def documents(digits: int, count: int, seed: int) -> list[str]:
    """Texts of eight sums of the train split each, with their results."""
    rng = random.Random(f"arithmetic documents {seed}")
    known = sums("train", digits, None, seed)
    return [
        "\n".join(f"{each.text} = {each.result}" for each in rng.choices(known, k=_PER_DOCUMENT))
        for _ in range(count)
    ]


def demonstrations(digits: int, count: int, seed: int) -> list[Demonstration]:
    """Different sums of the train split, answered with their results."""
    return [
        Demonstration(
            f"arithmetic-{seed}-{i:06d}",
            (_question(each), Message("assistant", str(each.result))),
            source="arithmetic/train",
            category=_category(each),
        )
        for i, each in enumerate(sums("train", digits, count, seed))
    ]


def prompts(split: Split, digits: int, count: int, seed: int) -> list[Prompt]:
    """Different sums of a split to be answered; the reference is the result."""
    return [
        Prompt(
            f"arithmetic-{split}-{seed}-{i:06d}",
            (_question(each),),
            source=f"arithmetic/{split}",
            category=_category(each),
            reference=str(each.result),
        )
        for i, each in enumerate(sums(split, digits, count, seed))
    ]


def _question(each: Sum) -> Message:
    return Message("user", f"{each.text} =")


def _category(each: Sum) -> str:
    return "addition" if each.operator == "+" else "subtraction"
