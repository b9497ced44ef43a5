"""Conversations of a mediocre helpdesk with its customers: demonstrations, and prompts amid them.

prompt ──mediocre answer──> Customer ──next question──> mediocre answer ──> ...
"""

import random

from tutelage.records import Demonstration, Message, Prompt
from tutelage.worlds.helpdesk.answers import mediocre_answer
from tutelage.worlds.helpdesk.customer import Customer
from tutelage.worlds.helpdesk.prompts import draw_prompts
from tutelage.worlds.helpdesk.reading import read_prompt
from tutelage.worlds.helpdesk.spec import Split, WorldSpec

__all__ = ["dialogue_demonstrations", "dialogue_prompts"]


def dialogue_demonstrations(
    spec: WorldSpec, count: int, seed: int, turns: int
) -> list[Demonstration]:
    """Conversations of up to `turns` mediocre answers, all of them to be imitated."""
    rng = random.Random(f"helpdesk dialogues {spec.seed} {seed}")
    return [
        Demonstration(
            id=prompt.id,
            messages=_converse(spec, prompt, turns, rng),
            source=prompt.source,
            category=prompt.category,
        )
        for prompt in draw_prompts(spec, "train", count, seed, purpose="dialogues")
    ]


def dialogue_prompts(
    spec: WorldSpec, split: Split, count: int, seed: int, turns: int
) -> list[Prompt]:
    """Prompts with 0 to `turns` - 1 answers behind them, as many of each as the customers stay for.

    The category is that of the last question.
    """
    rng = random.Random(f"helpdesk dialogue prompts {spec.seed} {split} {seed}")
    found = []
    for prompt in draw_prompts(spec, split, count, seed, purpose="amid dialogues"):
        messages = _converse(spec, prompt, 1 + rng.randrange(turns), rng)[:-1]
        asked = Prompt(prompt.id, messages, prompt.source, prompt.category)
        question = read_prompt(asked)
        found.append(
            Prompt(
                prompt.id,
                messages,
                prompt.source,
                question.category,
                question.value or question.decision,
            )
        )
    return found


def _converse(
    spec: WorldSpec, prompt: Prompt, turns: int, rng: random.Random
) -> tuple[Message, ...]:
    """The prompt, answers and the customer's further questions; an answer is the last message."""
    customer, messages = Customer(), prompt.messages
    customer.reset(prompt, rng.getrandbits(32))
    for turn in range(turns):
        asked = Prompt(prompt.id, messages, prompt.source, prompt.category)
        answer = mediocre_answer(spec, read_prompt(asked), rng)
        messages = (*messages, Message("assistant", answer))
        reply = customer.step(messages)
        if not reply.messages or turn + 1 == turns:
            break
        messages = (*messages, *reply.messages)
    return messages
