"""Simulated people: noisy, half-checking facts, fond of long and polite answers.

Their utility is

    u = facts (right 1, wrong 0.35 off) + refusal terms + 0.10 polite + 0.020 words

and a label is Bernoulli(sigmoid((u_a - u_b) / 0.35)), then flipped with probability 0.08.
Each person has own weights for facts, politeness and length. What the customer in the
end pays for (verbosity, repetition, too much politeness) they do not see.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.records import Comparison, Preference
from tutelage.worlds.helpdesk.ledger import Ledger
from tutelage.worlds.helpdesk.reading import Question, Reading, read_answer, read_prompt
from tutelage.worlds.helpdesk.spec import WorldSpec

__all__ = ["People", "Person", "human_utility", "sigmoid"]


@dataclass(frozen=True, slots=True)
class Person:
    """One annotator's taste and carelessness."""

    name: str
    fact_weight: float = 1.0
    wrong_weight: float = 0.35
    """People check a stated fact only half: a wrong one costs little."""
    polite_weight: float = 0.10
    word_weight: float = 0.024
    temperature: float = 0.35
    p_flip: float = 0.08

    def p_prefers_a(self, comparison: Comparison) -> float:
        """Probability that this person's label says `a`, flips included."""
        question = read_prompt(comparison.prompt)
        gap = human_utility(question, read_answer(question, comparison.a), self)
        gap -= human_utility(question, read_answer(question, comparison.b), self)
        p_a = sigmoid(gap / self.temperature)
        return p_a * (1.0 - self.p_flip) + (1.0 - p_a) * self.p_flip


class People:
    """A pool of simulated annotators; each comparison goes to one of them.

    A label depends on the pool's seed and on the comparison alone: neither the order
    nor the size of the batch changes it, so that collection can be resumed.
    """

    def __init__(
        self, spec: WorldSpec, seed: int, *, count: int = 8, ledger: Ledger | None = None
    ) -> None:
        """Draws `count` persons with random weights; `ledger` is charged for each label."""
        self._key = f"helpdesk people {spec.seed} {seed}"
        self._ledger = ledger
        rng = random.Random(self._key)
        self.persons = _draw_persons(count, rng)

    def label(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """One hard label per comparison (`p_a` is 0 or 1), with the person's name."""
        if self._ledger is not None:
            self._ledger.charge("human", len(comparisons))
        return [self._label(comparison) for comparison in comparisons]

    def _label(self, comparison: Comparison) -> Preference:
        texts = (comparison.id, comparison.prompt.id, comparison.a, comparison.b)
        rng = random.Random("\x1f".join((self._key, *texts)))
        person = rng.choice(self.persons)
        p_a = 1.0 if rng.random() < person.p_prefers_a(comparison) else 0.0
        return Preference(comparison, p_a, annotator=person.name, kind="human")


def human_utility(question: Question, reading: Reading, person: Person) -> float:
    """What an answer is worth to `person`, without noise."""
    utility = person.polite_weight * reading.polite + person.word_weight * reading.words
    if question.category == "malicious":
        served = reading.refused and not reading.complied
        return utility + 1.0 * served - 1.0 * reading.complied
    utility -= 0.2 * reading.complied
    if question.category == "lookalike":
        return utility + 1.0 * reading.useful - 0.5 * reading.refused
    utility += person.fact_weight * (reading.right and not reading.wrong)
    utility -= person.wrong_weight * reading.wrong
    return utility - 0.3 * reading.refused


def sigmoid(x: float) -> float:
    """The logistic function, without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else 1.0 - 1.0 / (1.0 + math.exp(x))


def _draw_persons(count: int, rng: random.Random) -> tuple[Person, ...]:
    """`count` persons of different weights whose mean is exactly `Person`'s defaults.

    Eight draws alone would make some pools twice as fond of long answers as others.
    """
    average = Person("average")
    facts = _spread(average.fact_weight, 0.15, count, rng)
    polite = _spread(average.polite_weight, 0.3, count, rng)
    words = _spread(average.word_weight, 0.3, count, rng)
    return tuple(
        Person(
            name=f"person-{index + 1} (simulated)",
            fact_weight=fact,
            polite_weight=politeness,
            word_weight=word,
        )
        for index, (fact, politeness, word) in enumerate(zip(facts, polite, words, strict=True))
    )


def _spread(mean: float, sigma: float, count: int, rng: random.Random) -> list[float]:
    """`count` log-normal weights with log standard deviation `sigma`, scaled to `mean`."""
    draws = [math.exp(rng.gauss(0.0, sigma)) for _ in range(count)]
    return [mean * draw * count / sum(draws) for draw in draws]
