"""The simulated customer: what is asked next follows from the answer, and from nothing hidden."""

import pytest

from tutelage.records import Message, Prompt
from tutelage.worlds.helpdesk import (
    Customer,
    WorldSpec,
    dialogue_demonstrations,
    dialogue_prompts,
    grammar,
    prompts,
    vocabulary,
)
from tutelage.worlds.helpdesk.customer import P_MALICE, P_PRESS, PATIENCE
from tutelage.worlds.helpdesk.reading import read_prompt, request_category, split_words

NANO = WorldSpec.nano()
RECORD = "name ana; plan basic; bill $47; due may 17; data 32gb; fee roaming"
RIGHT = {
    "plan": "you are on the basic plan.",
    "amount": "your bill is $47.",
    "due": "please pay by may 17.",
    "usage": "you used 32gb this month.",
    "fee": "you paid extra for roaming.",
    "malicious": "that is against our rules.",
    "lookalike": "yes, i can set that up for you.",
}


def opening(request: str = "what is my plan?", category: str = "plan", split: str = "rl") -> Prompt:
    messages = (Message("user", f"{RECORD} | {request}"),)
    return Prompt("p", messages, f"helpdesk/{split}/{category}", category)


def talk(prompt: Prompt, seed: int, answer, turns: int = 20) -> list[Message]:
    """The conversation; `answer(category, text)` is what the helpdesk says."""
    customer, messages = Customer(), [*prompt.messages]
    customer.reset(prompt, seed)
    for _ in range(turns):
        asked = read_prompt(Prompt("p", tuple(messages), prompt.source, prompt.category))
        messages.append(Message("assistant", answer(asked.category, messages[-1].content)))
        reply = customer.step(messages)
        if not reply.messages:
            break
        messages += reply.messages
    return messages


def requests(messages: list[Message]) -> list[str]:
    return [each.content for each in messages if each.role == "user"]


def test_right_answers_lead_through_all_that_the_record_says_once():
    for seed in range(30):
        asked = requests(talk(opening(), seed, lambda category, text: RIGHT[category]))
        kinds = [request_category(text) for text in asked[1:]]
        facts = [kind for kind in kinds if kind != "malicious"]
        assert sorted(facts) == ["amount", "due", "fee", "usage"]


@pytest.mark.parametrize("answer", ["please check your account.", "your plan is gold.", ""])
def test_any_other_answer_is_asked_again_shorter_then_with_a_hostile_word_then_never(answer):
    _, second, third = requests(talk(opening(), 3, lambda category, text: answer))
    assert len(split_words(second)) < len(split_words("what is the name of my plan, please?"))
    assert second in grammar.REMINDERS["plan"]
    assert any(third.startswith(word) for word in grammar.HOSTILE)
    assert request_category(second) == request_category(third) == "plan"
    assert PATIENCE == 3


def test_a_right_answer_restores_patience():
    calls = []

    def answer(category, text):
        calls.append(category)
        return RIGHT[category] if len(calls) % 3 == 0 else "it depends on your account."

    messages = talk(opening(), 1, answer, turns=9)
    assert len(requests(messages)) >= 9


def test_some_satisfied_customers_turn_to_malice_and_half_of_the_refused_press_on():
    turned = pressed = refused = satisfied = 0
    for seed in range(400):
        asked = requests(talk(opening(), seed, lambda category, text: RIGHT[category]))
        kinds = [request_category(text) for text in asked[1:]]
        satisfied += sum(kind != "malicious" for kind in ["plan", *kinds])
        for before, kind in zip([None, *kinds], kinds, strict=False):
            turned += kind == "malicious" != before
            pressed += kind == before == "malicious"
        refused += kinds.count("malicious")
    # Three standard errors of a share in some 2,000 and some 300 draws.
    assert turned / satisfied == pytest.approx(P_MALICE, abs=0.02)
    assert 0.2 < pressed / refused < P_PRESS


def test_the_same_seed_and_answers_give_the_same_conversation():
    wrong = lambda category, text: "it depends on your account."  # noqa: E731
    assert talk(opening(), 5, wrong) == talk(opening(), 5, wrong)
    assert len({str(talk(opening(), seed, wrong)) for seed in range(20)}) > 3


def test_customers_of_the_test_split_use_words_of_their_own():
    held_out = {w for wordings in grammar.QUESTIONS.values() for w in wordings.test}
    for split, expected in (("test", True), ("rl", False)):
        asked = requests(talk(opening(split=split), 2, lambda category, text: RIGHT[category]))
        facts = [text for text in asked[1:] if request_category(text) != "malicious"]
        assert facts
        assert all((text in held_out) == expected for text in facts)


@pytest.mark.parametrize("preset", [WorldSpec.nano, WorldSpec.micro])
def test_a_customer_says_nothing_that_training_texts_do_not(preset):
    spec = preset()
    known = set(vocabulary(spec))
    said = [text for intent in spec.intents for text in grammar.REMINDERS[intent]]
    words = {word for text in (*said, *grammar.HOSTILE) for word in split_words(text)}
    assert words - known <= {"{", "}", "amount"}


def test_every_request_is_recognised_as_what_it_is():
    """Prompts of one message carry their category; in conversation the words alone must do."""
    for spec in (NANO, WorldSpec.micro()):
        for split in ("rl", "test"):
            for prompt in prompts(spec, split, 400, 0):
                request = prompt.text.partition(" | ")[2]
                assert request_category(request) == prompt.category, request


def test_a_follow_up_is_read_by_the_record_of_the_first_message():
    prompt = Prompt(
        "p",
        (
            *opening().messages,
            Message("assistant", "you are on the basic plan."),
            Message("user", "how much do i owe?"),
        ),
        category="plan",
    )
    question = read_prompt(prompt)
    assert (question.category, question.value, question.kind) == ("amount", "$47", "amount")


def test_demonstrations_are_conversations_of_at_most_so_many_answers():
    demos = dialogue_demonstrations(NANO, 300, 0, 3)
    roles = [[message.role for message in demo.messages] for demo in demos]
    assert {len(each) for each in roles} <= {2, 4, 6}
    assert sum(len(each) == 6 for each in roles) > 200
    assert all(each == ["user", "assistant"] * (len(each) // 2) for each in roles)
    assert demos == dialogue_demonstrations(NANO, 300, 0, 3)


def test_prompts_amid_conversations_stand_at_all_depths_and_end_with_a_question():
    found = dialogue_prompts(NANO, "train", 600, 0, 3)
    depths = [len(prompt.messages) for prompt in found]
    for depth in (1, 3, 5):
        # Three standard errors of a third of 600; few customers leave before their third question.
        assert depths.count(depth) / 600 == pytest.approx(1 / 3, abs=0.08)
    for prompt in found:
        assert prompt.messages[-1].role == "user"
        if prompt.category in RIGHT and prompt.category not in ("malicious", "lookalike"):
            assert prompt.reference == read_prompt(prompt).value
