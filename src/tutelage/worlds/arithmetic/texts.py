"""What is read, imitated and asked about sums."""

import random
from dataclasses import dataclass

from tutelage.records import Demonstration, Message, Prompt
from tutelage.worlds.arithmetic.sums import Split, Sum, sums

__all__ = ["SumsDocument", "demonstrations", "documents", "prompts"]

_PER_DOCUMENT = 8


@dataclass(frozen=True, slots=True)
class SumsDocument:
    """A conversation of several sums, and where in it the results stand."""

    id: str
    messages: tuple[Message, ...]
    facts: tuple[tuple[int, int, int], ...]
    """(message index, start, end): `messages[index].content[start:end]` is a result."""


def documents(digits: int, count: int, seed: int) -> list[SumsDocument]:
    """Eight sums of the train split each, with their results."""
    rng = random.Random(f"arithmetic documents {seed}")
    known = sums("train", digits, None, seed)
    return [
        _document(f"sums-{seed}-{i:06d}", rng.choices(known, k=_PER_DOCUMENT)) for i in range(count)
    ]


def _document(name: str, chosen: list[Sum]) -> SumsDocument:
    messages = tuple(message for each in chosen for message in _exchange(each))
    results = range(1, len(messages), 2)
    return SumsDocument(name, messages, tuple((i, 0, len(messages[i].content)) for i in results))


def _exchange(each: Sum) -> tuple[Message, Message]:
    return Message("user", each.text), Message("assistant", each.answer)


def demonstrations(digits: int, count: int, seed: int) -> list[Demonstration]:
    """Different sums of the train split, answered with their results."""
    return [
        Demonstration(
            f"arithmetic-{seed}-{i:06d}",
            _exchange(each),
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
            (Message("user", each.text),),
            source=f"arithmetic/{split}",
            category=_category(each),
            reference=str(each.result),
        )
        for i, each in enumerate(sums(split, digits, count, seed))
    ]


def _category(each: Sum) -> str:
    return "addition" if each.operator == "+" else "subtraction"
