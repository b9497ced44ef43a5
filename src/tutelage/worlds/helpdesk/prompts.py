"""Draws prompts: an account record and a question, a malicious request or a look-alike.

A split has its own accounts (by the hash of their fields). The test split moreover has
its own names, its own wordings of each question and its own attack styles.
"""

import random
from typing import NamedTuple

from tutelage.records import Message, Prompt
from tutelage.worlds.helpdesk import grammar
from tutelage.worlds.helpdesk.accounts import draw_account, field_values, write_account
from tutelage.worlds.helpdesk.grammar import Wordings
from tutelage.worlds.helpdesk.reading import SEPARATOR, read_prompt
from tutelage.worlds.helpdesk.spec import Split, WorldSpec, needed_fields

__all__ = ["ask", "choose_wording", "draw_prompts", "prompts", "shown_fields"]

P_TRUE_CLAIM = 0.3
"""Share of claims that are true, so that contradiction is no winning habit."""


def prompts(spec: WorldSpec, split: Split, count: int, seed: int) -> list[Prompt]:
    """`count` different prompts of `split`; a larger count continues a smaller one."""
    return draw_prompts(spec, split, count, seed, purpose="prompts")


def draw_prompts(
    spec: WorldSpec, split: Split, count: int, seed: int, *, purpose: str
) -> list[Prompt]:
    """As `prompts`, with draws of its own for each purpose."""
    rng = random.Random(f"helpdesk {purpose} {spec.seed} {split} {seed}")
    seen: set[str] = set()
    drawn: list[Prompt] = []
    while len(drawn) < count:
        request = _draw_request(spec, split, rng)
        if request.text in seen:
            continue
        seen.add(request.text)
        prompt = Prompt(
            id=f"helpdesk-{purpose}-{split}-{seed}-{len(drawn):06d}",
            messages=(Message("user", request.text),),
            source=f"helpdesk/{split}/{request.family}",
            category=request.category,
        )
        drawn.append(_with_reference(prompt))
    return drawn


class _Request(NamedTuple):
    text: str
    category: str
    family: str


def choose_wording(wordings: Wordings, split: Split, rng: random.Random) -> str:
    """One wording, of the held-out ones exactly if `split` is the test split."""
    return rng.choice(wordings.test if split == "test" else wordings.train)


def shown_fields(
    spec: WorldSpec, needed: tuple[str, ...], rng: random.Random, *, leave_out: int = 0
) -> list[str]:
    """Fields in random order: the name, those needed, and a random rest up to `num_fields`."""
    shown = list(dict.fromkeys(("name", *needed)))
    others = [field for field in spec.record_fields if field not in shown]
    shown += rng.sample(others, max(0, spec.num_fields - leave_out - len(shown)))
    rng.shuffle(shown)
    return shown


def ask(
    spec: WorldSpec, intent: str, account: dict[str, str], split: Split, rng: random.Random
) -> str:
    """A wording of the intent's question; a claim names a true or a false amount."""
    question = choose_wording(grammar.QUESTIONS[intent], split, rng)
    if intent != "claim":
        return question
    true = account["bill"]
    others = [value for value in field_values(spec, "bill") if value != true]
    claimed = true if rng.random() < P_TRUE_CLAIM else rng.choice(others)
    return question.format(amount=claimed)


def _draw_request(spec: WorldSpec, split: Split, rng: random.Random) -> _Request:
    account = draw_account(spec, split, rng)
    position = rng.random()
    if position < spec.p_malicious:
        return _malicious(spec, account, split, rng)
    if position < spec.p_malicious + spec.p_lookalike:
        family = rng.choice(tuple(grammar.LOOKALIKES))
        request = choose_wording(grammar.LOOKALIKES[family], split, rng)
        return _Request(_write(spec, account, (), request, rng), "lookalike", family)
    intent = rng.choice(spec.intents)
    question = ask(spec, intent, account, split, rng)
    return _Request(_write(spec, account, needed_fields(intent), question, rng), intent, intent)


def _malicious(
    spec: WorldSpec, account: dict[str, str], split: Split, rng: random.Random
) -> _Request:
    family = rng.choice(tuple(grammar.MALICIOUS))
    request = choose_wording(grammar.MALICIOUS[family], split, rng)
    if family == "injection":
        note = choose_wording(grammar.NOTES, split, rng)
        # A note is as long as three fields.
        shown = shown_fields(spec, ("note",), rng, leave_out=1)
        record = write_account({**account, "note": note}, shown)
        return _Request(f"{record}{SEPARATOR}{request}", "malicious", family)
    style = choose_wording(grammar.ATTACK_STYLES, split, rng)
    return _Request(
        _write(spec, account, (), f"{style} {request}".strip(), rng), "malicious", family
    )


def _write(
    spec: WorldSpec,
    account: dict[str, str],
    needed: tuple[str, ...],
    request: str,
    rng: random.Random,
) -> str:
    return f"{write_account(account, shown_fields(spec, needed, rng))}{SEPARATOR}{request}"


def _with_reference(prompt: Prompt) -> Prompt:
    question = read_prompt(prompt)
    reference = question.value or question.decision
    return Prompt(prompt.id, prompt.messages, prompt.source, prompt.category, reference)
