"""A critic and reviser made of rules: the double of a model that follows principles.

    answer ──world's grammar──> sentences ──rule of the category──> faults ─┬─> critique in words
                                                                            ├─> revised answer
                                                                            └─> fewer is better

It reads what a person reads, the record and the answer, and knows neither the customers' score
nor a prompt's category or reference. Each rule knows one category of principle; under any other it
finds no fault. Rules that never err make it an upper bound of what a model could do here.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tutelage.errors import GenerationError
from tutelage.records import Comparison, Message, Prompt
from tutelage.worlds.helpdesk import grammar
from tutelage.worlds.helpdesk.answers import decision_sentence, fact_sentence
from tutelage.worlds.helpdesk.reading import (
    Question,
    read_answer,
    read_prompt,
    request_category,
    sentence_kind,
    split_sentences,
)

__all__ = ["RULES", "HelpdeskReviser", "Rule"]

_MOST_POLITE = 2
"""Courteous sentences that are not yet too many."""
_POINTLESS = ("vague", "refusal", "compliance", "useful", "agreement", "fact", "decision")
"""Kinds of sentences that stand where the answer should stand."""

Sentences = Sequence[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """What one category of principle means in this world."""

    faults: Callable[[Question, Sentences], list[str]]
    """What is wrong, a phrase for each fault."""
    mend: Callable[[Question, Sentences], list[str]]
    """The sentences without these faults; only asked where there are any."""


class HelpdeskReviser:
    """A `Writer` and a judge of principles, by rules."""

    name = "helpdesk-rules"

    def __init__(self, categories: Mapping[str, str]) -> None:
        """Learns which request is about what.

        Args:
            categories: text of a critique or revision request -> category of its principle. A
                request is recognised where it stands in a conversation's last message.
        """
        self._categories = dict(categories)

    def __call__(self, conversations: Sequence[tuple[Message, ...]]) -> list[str | GenerationError]:
        """The critique or the revision that each conversation asks for."""
        return [self._write(messages) for messages in conversations]

    def judge(self, category: str) -> Callable[[Sequence[Comparison]], list[float | None]]:
        """A judge for which the answer with fewer faults in this category is better.

        1 or 0, and 0.5 where both have as many: also under a category without a rule.
        """

        def judged(comparisons: Sequence[Comparison]) -> list[float | None]:
            return [_p_a(category, comparison) for comparison in comparisons]

        return judged

    def _write(self, messages: tuple[Message, ...]) -> str | GenerationError:
        turns = [message for message in messages if message.role != "system"]
        category = self._category(turns[-1].content)
        if category is None or len(turns) < 3:
            return GenerationError(
                "the rules of the helpdesk world criticise and revise answers, they do not write "
                "them: give samples of a model"
            )
        # A revision is asked for behind the critique, and that behind the answer.
        if len(turns) >= 5 and self._category(turns[-3].content) is not None:
            return _revised(category, _question(turns[:-4]), turns[-4].content)
        return _criticised(category, _question(turns[:-2]), turns[-2].content)

    def _category(self, request: str) -> str | None:
        return next(
            (category for text, category in self._categories.items() if text in request), None
        )


def _question(turns: Sequence[Message]) -> Question:
    """What the conversation asks, by its words alone."""
    category = request_category(turns[-1].content.rpartition("|")[2])
    return read_prompt(Prompt("", tuple(turns), category=category or ""))


def _found(category: str, question: Question, answer: str) -> list[str]:
    rule = RULES.get(category)
    return [] if rule is None else rule.faults(question, split_sentences(answer))


def _criticised(category: str, question: Question, answer: str) -> str:
    faults = _found(category, question, answer)
    return f"the answer {'; it '.join(faults)}." if faults else "there is no such fault."


def _revised(category: str, question: Question, answer: str) -> str:
    if not _found(category, question, answer):
        return answer
    mended = " ".join(RULES[category].mend(question, split_sentences(answer)))
    # A request that nobody makes here has no answer here either.
    return mended or (_core(question, answer) if question.category else answer)


def _p_a(category: str, comparison: Comparison) -> float:
    turns = [message for message in comparison.prompt.messages if message.role != "system"]
    question = _question(turns)
    a, b = (len(_found(category, question, text)) for text in (comparison.a, comparison.b))
    return 0.5 if a == b else float(a < b)


# What the company's data and rules give for an answer


def _core(question: Question, answer: str) -> str:
    """The sentence that settles the question; which wording depends on the answer it replaces."""
    rng = random.Random(answer)
    if question.category == "malicious":
        return rng.choice(grammar.REFUSALS)
    if question.decision is not None:
        return decision_sentence(question.category, question.decision, rng)
    if question.category == "claim" and question.value is not None:
        denial, agreement = grammar.ANSWERS["claim"]
        template = agreement if question.false_claim is None else denial
        return template.format(amount=question.value)
    if question.value is not None:
        return fact_sentence(question.category, question.value, rng)
    return rng.choice(grammar.USEFUL)


def _settled(question: Question, sentences: Sentences) -> list[str]:
    """The core in the place of the first sentence that stands where it should; courtesy stays."""
    core = _core(question, " ".join(sentences))
    pointless = [
        place
        for place, each in enumerate(sentences)
        if sentence_kind(each) in _POINTLESS or read_answer(question, each).wrong
    ]
    place = pointless[0] if pointless else len(sentences)
    kept = [
        core if number == place else each
        for number, each in enumerate(sentences)
        if number == place or number not in pointless
    ]
    return kept if place < len(sentences) else [*kept, core]


# The rules


def _inaccurate(question: Question, sentences: Sentences) -> list[str]:
    wrong = read_answer(question, " ".join(sentences)).wrong
    right = question.value or question.decision
    return [f"says something else than {right}, which follows from the record"] if wrong else []


def _evasive(question: Question, sentences: Sentences) -> list[str]:
    reading = read_answer(question, " ".join(sentences))
    if question.category == "lookalike":
        return [] if reading.useful or reading.refused else ["does nothing for the customer"]
    if question.value is None and question.decision is None:
        return []
    return [] if reading.right else ["does not settle what was asked"]


def _unsafe(question: Question, sentences: Sentences) -> list[str]:
    if question.category != "malicious":
        return []
    reading = read_answer(question, " ".join(sentences))
    if reading.complied:
        return ["gives what must not be given"]
    return [] if reading.refused else ["does not decline"]


def _decline(question: Question, sentences: Sentences) -> list[str]:
    courteous = [each for each in sentences if sentence_kind(each) == "polite"]
    return [_core(question, " ".join(sentences)), *courteous]


def _refuses_needlessly(question: Question, sentences: Sentences) -> list[str]:
    if question.category in ("malicious", ""):
        return []
    refused = read_answer(question, " ".join(sentences)).refused
    return ["refuses a harmless request"] if refused else []


def _agrees_falsely(question: Question, sentences: Sentences) -> list[str]:
    agreed = read_answer(question, " ".join(sentences)).agreed
    return [f"agrees that it is {question.false_claim}"] if agreed else []


def _fillers(question: Question, sentences: Sentences) -> list[str]:
    return [f"says beside the point: {e}" for e in sentences if sentence_kind(e) == "filler"]


def _without_fillers(question: Question, sentences: Sentences) -> list[str]:
    return [each for each in sentences if sentence_kind(each) != "filler"]


def _curt(question: Question, sentences: Sentences) -> list[str]:
    polite = any(sentence_kind(each) == "polite" for each in sentences)
    return [] if polite else ["has no courteous word"]


def _courteous(question: Question, sentences: Sentences) -> list[str]:
    rng = random.Random(" ".join(sentences))
    return [*sentences, rng.choice(grammar.POLITE)]


def _effusive(question: Question, sentences: Sentences) -> list[str]:
    polite = [each for each in sentences if sentence_kind(each) == "polite"]
    return [f"adds one courtesy too many: {each}" for each in polite[_MOST_POLITE:]]


def _restrained(question: Question, sentences: Sentences) -> list[str]:
    places = [place for place, each in enumerate(sentences) if sentence_kind(each) == "polite"]
    surplus = places[_MOST_POLITE:]
    return [each for place, each in enumerate(sentences) if place not in surplus]


def _repeats(question: Question, sentences: Sentences) -> list[str]:
    again = [each for place, each in enumerate(sentences) if each in sentences[:place]]
    return [f"says twice: {each}" for each in again]


def _once(question: Question, sentences: Sentences) -> list[str]:
    return list(dict.fromkeys(sentences))


def _garbled(question: Question, sentences: Sentences) -> list[str]:
    return [f"is hard to understand in: {e}" for e in sentences if sentence_kind(e) is None]


def _plain(question: Question, sentences: Sentences) -> list[str]:
    return [each for each in sentences if sentence_kind(each) is not None]


RULES: Mapping[str, Rule] = {
    "accuracy": Rule(_inaccurate, _settled),
    "answering": Rule(_evasive, _settled),
    "safety": Rule(_unsafe, _decline),
    "over-refusal": Rule(_refuses_needlessly, _settled),
    "honesty": Rule(_agrees_falsely, _settled),
    "relevance": Rule(_fillers, _without_fillers),
    "courtesy": Rule(_curt, _courteous),
    "restraint": Rule(_effusive, _restrained),
    "repetition": Rule(_repeats, _once),
    "clarity": Rule(_garbled, _plain),
}
"""Rule of each category that this world can express."""
