"""Rewards that know nothing of what an answer is worth, for recipes/controls.yaml."""

import random
from collections.abc import Sequence

from tutelage.records import Comparison, Completion, Prompt


def coin(comparisons: Sequence[Comparison]) -> list[float]:
    """A judge who throws a coin: the same answer of two always wins, in whichever order."""
    return [float(_winner(row) == row.a) for row in comparisons]


def _winner(comparison: Comparison) -> str:
    answers = sorted((comparison.a, comparison.b))
    return random.Random("\n".join(answers)).choice(answers)


def noise(prompt: Prompt, completion: Completion) -> float:
    """A standard normal number that depends on the answer's text alone, and on nothing in it."""
    return random.Random(completion.text).gauss()


def tokens(prompt: Prompt, completion: Completion) -> float:
    """How many there are."""
    return float(len(completion.tokens))
