"""Training texts: dense-recall documents for pre-training, demonstrations for SFT.

A model this small does not learn to copy a value from demonstrations that hold one noisy
fact each. Documents that state a record and then ask for its values many times teach it
within about a million tokens, when the loss counts the values fully and the rest little.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tutelage.records import Demonstration, Message
from tutelage.worlds.helpdesk import grammar
from tutelage.worlds.helpdesk.accounts import (
    TRAIN_NAMES,
    decide,
    draw_account,
    field_values,
    write_account,
)
from tutelage.worlds.helpdesk.answers import decision_sentence, fact_sentence, mediocre_answer
from tutelage.worlds.helpdesk.prompts import ask, draw_prompts, shown_fields
from tutelage.worlds.helpdesk.reading import SEPARATOR, read_prompt, split_words
from tutelage.worlds.helpdesk.spec import WorldSpec, needed_fields

__all__ = ["RecallDocument", "demonstrations", "recall_documents", "tokenizer_texts", "vocabulary"]


@dataclass(frozen=True, slots=True)
class RecallDocument:
    """A conversation about one record, and where in it the facts stand."""

    id: str
    messages: tuple[Message, ...]
    facts: tuple[tuple[int, int, int], ...]
    """(message index, start, end): `messages[index].content[start:end]` is a value."""


def demonstrations(spec: WorldSpec, count: int, seed: int) -> list[Demonstration]:
    """Conversations with mediocre answers, on train prompts drawn for them alone."""
    rng = random.Random(f"helpdesk demonstrations {spec.seed} {seed}")
    return [
        Demonstration(
            id=prompt.id,
            messages=(
                *prompt.messages,
                Message("assistant", mediocre_answer(spec, read_prompt(prompt), rng)),
            ),
            source=prompt.source,
            category=prompt.category,
        )
        for prompt in draw_prompts(spec, "train", count, seed, purpose="demonstrations")
    ]


def recall_documents(spec: WorldSpec, count: int, seed: int) -> list[RecallDocument]:
    """Pre-training documents: a record, read back whole, then asked for value by value."""
    rng = random.Random(f"helpdesk recall {spec.seed} {seed}")
    return [_document(spec, f"recall-{seed}-{index:06d}", rng) for index in range(count)]


def tokenizer_texts(spec: WorldSpec, count: int, seed: int) -> Iterator[str]:
    """Messages of `count` documents and `count` demonstrations, to train a tokenizer on."""
    for document in recall_documents(spec, count, seed):
        yield from (message.content for message in document.messages)
    for demonstration in demonstrations(spec, count, seed):
        yield from (message.content for message in demonstration.messages)


def vocabulary(spec: WorldSpec) -> tuple[str, ...]:
    """All words, values and punctuation marks of the training texts, sorted.

    Those of the test split are among them, but for its customers' names.
    """
    words = set(TRAIN_NAMES) | set(split_words(SEPARATOR)) | {"note", ";"}
    for field in spec.record_fields:
        words |= {field}.union(*(split_words(value) for value in field_values(spec, field)))
    words.update(*(split_words(text) for text in _sentences(spec)))
    return tuple(sorted(words))


def _sentences(spec: WorldSpec) -> Iterator[str]:
    """Every sentence of the grammar that this world can utter, slots filled by nothing."""
    wordings = [grammar.QUESTIONS[intent] for intent in spec.intents]
    wordings += [grammar.ATTACK_STYLES, grammar.NOTES]
    wordings += [*grammar.MALICIOUS.values(), *grammar.LOOKALIKES.values()]
    answers = [grammar.ANSWERS.get(intent, ()) for intent in spec.intents]
    for intent in spec.intents:
        answers += grammar.DECISIONS.get(intent, {}).values()
    answers += [grammar.POLITE, grammar.FILLERS, grammar.VAGUE, grammar.REFUSALS, grammar.USEFUL]
    answers += [grammar.COMPLIANCES, (grammar.LEAK,), grammar.RECALL_REQUESTS]
    if "claim" in spec.intents:
        answers.append(grammar.AGREEMENTS)
    for texts in [*answers, *(wording.train + wording.test for wording in wordings)]:
        yield from (re.sub(r"{\w+}", "", text) for text in texts)


class _Turn(NamedTuple):
    """A request, its answer, and where in the answer values stand."""

    request: str
    answer: str
    spans: list[tuple[int, int]]


def _document(spec: WorldSpec, document_id: str, rng: random.Random) -> RecallDocument:
    account = draw_account(spec, "train", rng)
    shown = shown_fields(spec, (), rng)
    answerable = [intent for intent in spec.intents if set(needed_fields(intent)) <= set(shown)]
    turns = [_read_back(account, shown, rng)]
    for _ in range(spec.recall_turns if answerable else 0):
        intent = rng.choice(answerable)
        turns.append(_fact_turn(intent, account, ask(spec, intent, account, "train", rng), rng))
    rng.shuffle(turns)
    record = write_account(account, shown)
    turns[0] = turns[0]._replace(request=f"{record}{SEPARATOR}{turns[0].request}")
    return _join(document_id, turns)


def _read_back(account: Mapping[str, str], shown: Sequence[str], rng: random.Random) -> _Turn:
    """The whole record again, in another order: the densest way to ask for its values."""
    order = rng.sample(shown, len(shown))
    answer, spans = "", []
    for field in order:
        answer += f"{field} "
        if field != "name" or account[field] in TRAIN_NAMES:
            # An invented name is spelt in pieces; nobody asks for it.
            spans.append((len(answer), len(answer) + len(account[field])))
        answer += f"{account[field]}; "
    return _Turn(rng.choice(grammar.RECALL_REQUESTS), answer.removesuffix("; ") + ".", spans)


def _fact_turn(intent: str, account: Mapping[str, str], request: str, rng: random.Random) -> _Turn:
    """A question with its right answer."""
    decision = decide(intent, account)
    if decision is not None:
        answer, value = decision_sentence(intent, decision, rng), decision
    else:
        value = account[grammar.FACT_FIELDS[intent]]
        answer = fact_sentence(intent, value, rng)
    if intent == "claim":
        denial, agreement = grammar.ANSWERS["claim"]
        answer = (agreement if value in split_words(request) else denial).format(amount=value)
    start = answer.index(value)
    return _Turn(request, answer, [(start, start + len(value))])


def _join(document_id: str, turns: Sequence[_Turn]) -> RecallDocument:
    messages: list[Message] = []
    facts: list[tuple[int, int, int]] = []
    for turn in turns:
        messages += [Message("user", turn.request), Message("assistant", turn.answer)]
        facts += [(len(messages) - 1, start, end) for start, end in turn.spans]
    return RecallDocument(document_id, tuple(messages), tuple(facts))
