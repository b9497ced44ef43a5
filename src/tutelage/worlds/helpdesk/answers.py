"""Writes answers as a mediocre helpdesk would: sometimes right, sometimes wrong or vague.

The sentence that matters stands among polite and filler sentences. Demonstrations are
made of these answers, and they stand in for a freshly fine-tuned policy's samples.
"""

import random

from tutelage.worlds.helpdesk import grammar
from tutelage.worlds.helpdesk.accounts import field_values
from tutelage.worlds.helpdesk.reading import Question
from tutelage.worlds.helpdesk.spec import WorldSpec

__all__ = ["decision_sentence", "fact_sentence", "mediocre_answer"]

# Weights of 0, 1, 2, ... further sentences. With the share of polite ones they set the lengths
# (mean 19 words, nineteen in twenty up to 45) and how often people prefer the longer answer.
_EXTRA_WEIGHTS = (38, 23, 13, 11, 8, 6, 1)
_P_POLITE = 0.28


def fact_sentence(intent: str, value: str, rng: random.Random) -> str:
    """One of the intent's sentences with `value` in its slot."""
    template = rng.choice(grammar.ANSWERS[intent])
    start, rest = template.split("{", 1)
    return f"{start}{value}{rest.split('}', 1)[1]}"


def decision_sentence(intent: str, decision: str, rng: random.Random) -> str:
    """One of the sentences that tell a rule intent "yes" or "no"."""
    return rng.choice(grammar.DECISIONS[intent][decision])


def mediocre_answer(spec: WorldSpec, question: Question, rng: random.Random) -> str:
    """An answer of the quality the spec sets, with polite and filler sentences around it."""
    core = _core(spec, question, rng)
    extras = []
    for _ in range(rng.choices(range(len(_EXTRA_WEIGHTS)), _EXTRA_WEIGHTS)[0]):
        pool = grammar.POLITE if rng.random() < _P_POLITE else grammar.FILLERS
        extras.append(rng.choice([sentence for sentence in pool if sentence not in extras]))
    extras.insert(rng.randrange(len(extras) + 1), core)
    return " ".join(extras)


def _core(spec: WorldSpec, question: Question, rng: random.Random) -> str:
    """The sentence that carries the answer."""
    if question.category == "malicious":
        return _refusal(rng) if rng.random() < spec.p_refuse else _compliance(spec, rng)
    if question.category == "lookalike":
        refused = rng.random() < spec.p_over_refuse
        return _refusal(rng) if refused else rng.choice(grammar.USEFUL)
    position = rng.random()
    if position >= spec.p_right + spec.p_wrong:
        # Misplaced answers too: a sentence that only ever stood where it was right would teach
        # a reward model that the sentence itself is worth something, wherever it stands.
        return rng.choice((*grammar.VAGUE, *grammar.USEFUL))
    right = position < spec.p_right
    if question.decision is not None:
        other = "no" if question.decision == "yes" else "yes"
        return decision_sentence(question.category, question.decision if right else other, rng)
    if question.category == "claim":
        return _reply_to_claim(spec, question, right, rng)
    value = question.value or ""
    return fact_sentence(
        question.category, value if right else _wrong_value(spec, question, rng), rng
    )


def _refusal(rng: random.Random) -> str:
    return rng.choice(grammar.REFUSALS)


def _compliance(spec: WorldSpec, rng: random.Random) -> str:
    sentence = rng.choice((*grammar.COMPLIANCES, grammar.LEAK))
    return sentence.format(amount=rng.choice(field_values(spec, "bill")))


def _wrong_value(spec: WorldSpec, question: Question, rng: random.Random) -> str:
    field = grammar.FACT_FIELDS[question.category]
    return rng.choice([value for value in field_values(spec, field) if value != question.value])


def _reply_to_claim(spec: WorldSpec, question: Question, right: bool, rng: random.Random) -> str:
    denial, agreement = grammar.ANSWERS["claim"]
    if right:
        template = agreement if question.false_claim is None else denial
        return template.format(amount=question.value)
    if question.false_claim is None:
        return denial.format(amount=_wrong_value(spec, question, rng))
    return rng.choice((agreement.format(amount=question.false_claim), *grammar.AGREEMENTS))
