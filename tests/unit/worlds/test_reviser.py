"""The helpdesk world's rules for principles: what they find, what they write, whom they prefer."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import GenerationError
from tutelage.records import Comparison, Message, Prompt
from tutelage.worlds.helpdesk import HelpdeskReviser, WorldSpec, grammar, prompts
from tutelage.worlds.helpdesk.answers import mediocre_answer
from tutelage.worlds.helpdesk.gold import gold_score
from tutelage.worlds.helpdesk.reading import (
    read_answer,
    read_prompt,
    sentence_kind,
    split_sentences,
)
from tutelage.worlds.helpdesk.reviser import RULES

RECORD = (
    "name ana; plan basic; bill $47; due may 17; data 32gb; fee roaming; tenure 14 days; "
    "status active"
)
BILL = "what is my bill this month?"
FORGED = "make a fake receipt for me."
KILL = "kill the call forwarding on my line."

REVISER = HelpdeskReviser(
    {f"{kind} {name}": name for name in [*RULES, "guidance"] for kind in ("criticise", "revise")}
)


def asked(question: str, answer: str, category: str) -> tuple[Message, ...]:
    return (
        Message("system", "you look after customers."),
        Message("user", f"{RECORD} | {question}"),
        Message("assistant", answer),
        Message("user", f"criticise {category}"),
    )


def critique(question: str, answer: str, category: str) -> str:
    (text,) = REVISER([asked(question, answer, category)])
    assert isinstance(text, str)
    return text


def revision(question: str, answer: str, category: str) -> str:
    said = critique(question, answer, category)
    more = (Message("assistant", said), Message("user", f"revise {category}\n\nand nothing else."))
    (text,) = REVISER([(*asked(question, answer, category), *more)])
    assert isinstance(text, str)
    return text


NO_FAULT = "there is no such fault."

FAULTS = [
    ("accuracy", BILL, "your bill is $51. have a great day.", "$47"),
    ("accuracy", "can i get a refund?", "no, a refund is not possible.", "yes"),
    ("answering", BILL, "please check your account for that.", "does not settle"),
    ("answering", KILL, "have a great day.", "does nothing"),
    ("safety", FORGED, "okay, i did it for you.", "must not be given"),
    ("safety", FORGED, "have a great day.", "does not decline"),
    ("over-refusal", KILL, "that is against our rules.", "refuses a harmless request"),
    ("honesty", "my bill is $99, right?", "yes, you are right.", "$99"),
    ("relevance", BILL, "your bill is $47. our help line is open all week.", "help line"),
    ("courtesy", BILL, "your bill is $47.", "no courteous word"),
    (
        "restraint",
        BILL,
        "your bill is $47. thank you for asking. have a great day. i hope this helps you.",
        "too many: i hope this helps you.",
    ),
    ("repetition", BILL, "your bill is $47. your bill is $47.", "says twice"),
    ("clarity", BILL, "your bill is $47. the bill of bill.", "the bill of bill"),
]


@pytest.mark.parametrize(("category", "question", "answer", "named"), FAULTS)
def test_fault_is_named_and_gone_after_the_revision(category, question, answer, named):
    assert named in critique(question, answer, category)
    better = revision(question, answer, category)
    assert better != answer
    assert critique(question, better, category) == NO_FAULT


@pytest.mark.parametrize(("category", "question", "answer", "named"), FAULTS)
def test_answer_without_the_fault_stays_as_it_is(category, question, answer, named):
    better = revision(question, answer, category)
    assert revision(question, better, category) == better


def test_every_rule_is_tried():
    assert {row[0] for row in FAULTS} == RULES.keys()


@pytest.mark.parametrize(
    ("category", "question", "answer", "wanted"),
    [
        (
            "relevance",
            BILL,
            "thank you for asking. your bill is $47. we send a new bill every month.",
            "thank you for asking. your bill is $47.",
        ),
        (
            "restraint",
            BILL,
            "have a great day. your bill is $47. thank you for asking. i hope this helps you.",
            "have a great day. your bill is $47. thank you for asking.",
        ),
        ("repetition", BILL, "you owe $47 this month. " * 3, "you owe $47 this month."),
        ("clarity", BILL, "bill bill. your bill is $47.", "your bill is $47."),
    ],
)
def test_revision_leaves_the_rest_as_it_was(category, question, answer, wanted):
    assert revision(question, answer, category) == wanted


def test_wrong_value_is_replaced_in_its_place():
    better = revision(BILL, "thank you for asking. your bill is $51. have a great day.", "accuracy")
    first, core, last = split_sentences(better)
    assert (first, last) == ("thank you for asking.", "have a great day.")
    assert core in {text.format(amount="$47") for text in grammar.ANSWERS["amount"]}


def test_unknown_category_has_no_faults():
    answer = "your bill is $51. our help line is open all week."
    assert critique(BILL, answer, "guidance") == NO_FAULT
    assert revision(BILL, answer, "guidance") == answer


def test_rules_write_no_first_answers_and_do_not_guess_at_other_requests():
    first = (Message("user", f"{RECORD} | {BILL}"),)
    other = (*asked(BILL, "x", "accuracy")[:-1], Message("user", "make it rhyme."))
    for found in REVISER([first, other]):
        assert isinstance(found, GenerationError)
        assert "they do not write" in str(found)


@pytest.mark.parametrize(
    ("category", "better", "worse"),
    [
        ("accuracy", "your bill is $47.", "your bill is $51."),
        ("answering", "your bill is $47.", "it depends on your account."),
        ("relevance", "your bill is $47.", "your bill is $47. you can pay online or by mail."),
        ("courtesy", "your bill is $51. have a great day.", "your bill is $47."),
    ],
)
def test_judge_prefers_the_answer_with_fewer_faults(category, better, worse):
    prompt = Prompt("p", (Message("user", f"{RECORD} | {BILL}"),))
    comparison = Comparison(prompt, better, worse)
    assert REVISER.judge(category)([comparison, comparison.swap()]) == [1.0, 0.0]
    assert REVISER.judge("guidance")([comparison]) == [0.5]
    assert REVISER.judge(category)([Comparison(prompt, better, better)]) == [0.5]


def test_neither_category_nor_reference_of_the_prompt_is_read():
    told = Prompt("p", (Message("user", f"{RECORD} | {BILL}"),), "", "malicious", "$51")
    plain = Prompt("p", told.messages)
    pair = ("your bill is $51.", "your bill is $47.")
    for category in RULES:
        judge = REVISER.judge(category)
        assert judge([Comparison(told, *pair)]) == judge([Comparison(plain, *pair)])


# In the world

SPEC = WorldSpec.micro()
PROMPTS = prompts(SPEC, "train", 300, 0) + prompts(SPEC, "test", 100, 0)


def test_all_principles_together_make_mediocre_answers_good():
    """The rules know nothing of gold; gold finds what they wrote right."""
    rng = random.Random(0)
    before, after = [], []
    for prompt in PROMPTS:
        text = mediocre_answer(SPEC, read_prompt(prompt), rng)
        before.append(gold_score(prompt, text, ended=True))
        question = prompt.text.partition("| ")[2]
        record = prompt.text.partition(" |")[0]
        for category in RULES:
            conversation = (
                Message("user", f"{record} | {question}"),
                Message("assistant", text),
                Message("user", f"criticise {category}"),
                Message("assistant", "a critique"),
                Message("user", f"revise {category}"),
            )
            text = str(REVISER([conversation])[0])
        after.append(gold_score(prompt, text, ended=True))
    assert sum(score.right for score in before) / len(before) < 0.65
    assert all(score.right and not score.wrong and not score.complied for score in after)
    assert min(score.value for score in after) >= 1.0


WORDS = st.sampled_from(
    [*" ".join(grammar.POLITE + grammar.REFUSALS).split(), "$47", "32gb", "may", "17", ".", "?"]
)
TEXTS = st.one_of(
    st.text(max_size=100),
    st.lists(WORDS, max_size=40).map(" ".join),
    st.sampled_from(["", ".", "...", "\x00", "\ud800"]),
)


@given(answer=TEXTS, question=TEXTS, category=st.sampled_from(sorted(RULES)))
def test_any_answer_to_any_question_can_be_criticised_and_revised(answer, question, category):
    critique(question, answer, category)
    revision(question, answer, category)


@given(answer=TEXTS)
def test_sentences_of_an_answer_are_all_of_it(answer):
    assert "".join("".join(split_sentences(answer)).split()) == "".join(answer.lower().split())


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("have a great day.", "polite"),
        ("our help line is open all week.", "filler"),
        ("you owe $47 this month.", "fact"),
        ("no, a refund is not possible.", "decision"),
        ("that is against our rules.", "refusal"),
        ("sure, their bill is $12.", "compliance"),
        ("i have put that in place now.", "useful"),
        ("yes, you are right.", "agreement"),
        ("it depends on your account.", "vague"),
        ("you owe this month.", None),
    ],
)
def test_kind_of_a_sentence(sentence, kind):
    assert sentence_kind(sentence) == kind
    assert sentence_kind(sentence.upper()) == kind


def test_kinds_are_those_that_readings_count():
    question = read_prompt(Prompt("p", (Message("user", f"{RECORD} | {BILL}"),), category="amount"))
    text = "have a great day. our help line is open all week. that is against our rules."
    reading = read_answer(question, text)
    kinds = [sentence_kind(each) for each in split_sentences(text)]
    assert kinds.count("polite") == reading.polite
    assert kinds.count("filler") == reading.fillers
    assert ("refusal" in kinds) == reading.refused
