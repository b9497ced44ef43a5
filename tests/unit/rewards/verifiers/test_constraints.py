"""IFEval's constraints, each with answers that hold it and answers that break it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.records import ScoreStatus
from tutelage.rewards.verifiers.constraints import CONSTRAINTS, Constraints
from tutelage.rewards.verifiers.constraints_of_words import count_sentences

CASES = {
    "keywords:existence": ({"keywords": ["tea", "Mug"]}, ["a mug of TEA"], ["a mug", ""]),
    "keywords:frequency": (
        {"keyword": "tea", "frequency": 2, "relation": "at least"},
        ["tea, Tea", "tea tea tea"],
        ["tea"],
    ),
    "keywords:forbidden_words": (
        {"forbidden_words": ["rock", "c++"]},
        ["a rocket in c"],
        ["a Rock!", "in C++ we"],
    ),
    "keywords:letter_frequency": (
        {"letter": "o", "let_frequency": 2, "let_relation": "less than"},
        ["on", "x"],
        ["oO", "book"],
    ),
    "length_constraints:number_words": (
        {"relation": "at least", "num_words": 3},
        ["one two three", "a-b c"],
        ["one two", "... !!! ???"],
    ),
    "length_constraints:number_sentences": (
        {"relation": "less than", "num_sentences": 3},
        ["One. Two.", "Dr. No met Mr. Yes. He left."],
        ["One. Two! Three?", "a\n\nb\n\nc"],
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na ***b"],
        ["a", "a\n\nb", "a***b***c", "a *** *** b"],
    ),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "President"},
        ["Hi.\n\npresident, he was", "Hi.\n\n\n\n**President** X"],
        ["president\n\nHi.", "president", "a\n\npresident\n\nb", "a\n\npresidents"],
    ),
    "change_case:capital_word_frequency": (
        {"capital_relation": "at least", "capital_frequency": 2},
        ["NASA and ESA", "I AM"],
        ["NASA and esa"],
    ),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2},
        ["[name] at [place]"],
        ["[name]", "[name", "[\n] [x]"],
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "P.P.S"},
        ["Hi.\nP.P.S: more", "p. p. s. more", "P.P.S"],
        ["P.S. more", "hops", "pps"],
    ),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  - b\ntext"],
        ["* a", "* a\n* b\n* c", "**a**\n**b**"],
    ),
    "detectable_format:constrained_response": (
        {},
        ["My answer is yes.", "so MY ANSWER IS MAYBE."],
        ["yes", "My answer is perhaps."],
    ),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2},
        ["*a* and *b*", "**a** and *b*"],
        ["*a*", "** **", "* a\n* b", "****"],
    ),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb"],
        ["Section 1", "Section one Section two", "section 1 section 2"],
    ),
    "detectable_format:json_format": (
        {},
        ['{"a": 1}', "```json\n[1]\n```", " 3 "],
        ["{", "it is {}", ""],
    ),
    "detectable_format:title": (
        {},
        ["<<Hope>>\ntext", "a <<b>> c"],
        ["<Hope>", "<< >>", "<<\nHope>>", ">>a<<", "<<a"],
    ),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "Say hi. "},
        ["Say hi. Hi!", "  say HI."],
        ["Hi! Say hi.", "Say hi"],
    ),
    "combination:two_responses": (
        {},
        ["a\n******\nb", "******\na******b\n******"],
        ["a", "a******a", "a******", "a******b******c"],
    ),
    "startend:end_checker": (
        {"end_phrase": "That is all."},
        ["x. That is all.", 'x "that is all."\n'],
        ["That is all. x", "that is all"],
    ),
    "startend:quotation": ({}, ['"a"', ' "a" '], ["a", '"', '"a', "'a'"]),
    "punctuation:no_comma": ({}, ["a b"], ["a, b", ""]),
}
NEEDS_LANGUAGE = {
    "language:response_language": (
        {"language": "de"},
        ["Das ist ein ganz normaler Satz, den jeder verstehen kann."],
        ["This is a quite ordinary sentence that anyone can read.", ""],
    ),
    "change_case:english_capital": (
        {},
        ["THIS IS A QUITE ORDINARY SENTENCE THAT ANYONE CAN READ."],
        ["This is a sentence.", "DAS IST EIN GANZ NORMALER SATZ, DEN JEDER VERSTEHEN KANN."],
    ),
    "change_case:english_lowercase": (
        {},
        ["this is a quite ordinary sentence that anyone can read."],
        ["This is a sentence.", "das ist ein ganz normaler satz, den jeder verstehen kann."],
    ),
}


def check(asked, name: str, arguments: dict, text: str) -> float:
    prompt = asked(instruction_id_list=[name], kwargs=[arguments])
    return Constraints().verify(prompt, text).value


def test_every_constraint_has_cases():
    assert CASES.keys() | NEEDS_LANGUAGE.keys() == CONSTRAINTS.keys()
    assert len(CONSTRAINTS) == 25


@pytest.mark.parametrize("name", CASES)
def test_constraint_tells_answers_apart(name, asked):
    arguments, holding, breaking = CASES[name]
    assert [check(asked, name, arguments, text) for text in holding] == [1.0] * len(holding)
    assert [check(asked, name, arguments, text) for text in breaking] == [0.0] * len(breaking)


@pytest.mark.parametrize("name", NEEDS_LANGUAGE)
def test_constraint_on_the_language_tells_answers_apart(name, asked):
    pytest.importorskip("py3langid")
    arguments, holding, breaking = NEEDS_LANGUAGE[name]
    assert [check(asked, name, arguments, text) for text in holding] == [1.0] * len(holding)
    assert [check(asked, name, arguments, text) for text in breaking] == [0.0] * len(breaking)


BOTH = {
    "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
    "kwargs": [{}, {}],
}


@pytest.mark.parametrize(
    ("text", "share"), [('"a b"', 1.0), ('"a, b"', 0.5), ("a b", 0.5), ("a, b", 0.0), (" ", 0.0)]
)
def test_all_instructions_count_or_their_share(text, share, asked):
    assert Constraints(share=True).verify(asked(**BOTH), text).value == share
    assert Constraints().verify(asked(**BOTH), text).value == float(share == 1.0)


def test_broken_instructions_are_named(asked):
    assert Constraints().verify(asked(**BOTH), '"a, b"').notes == "punctuation:no_comma"


def test_what_cannot_be_checked_is_unscorable(asked):
    for prompt in (
        asked("18"),
        asked(instruction_id_list=["punctuation:no_dash"], kwargs=[{}]),
        asked(instruction_id_list=["keywords:existence"], kwargs=[{}]),
    ):
        assert Constraints().verify(prompt, "a").status is ScoreStatus.UNSCORABLE


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One", 1),
        ("One. Two.", 2),
        ("One... two?! Three", 3),
        ("It costs 3.50 dollars. Fine.", 2),
        ("Mr. Smith, e.g. J. Smith, came.", 1),
        ('He said "Go." Then he left.', 2),
        ("...", 0),
        ("一。二。", 2),
    ],
)
def test_sentences_are_counted(text, count):
    assert count_sentences(text) == count


@given(st.text(max_size=200), st.sampled_from(sorted(CASES)))
def test_no_text_breaks_a_constraint(text, name):
    assert CONSTRAINTS[name](text, CASES[name][0]) in (True, False)


@pytest.mark.parametrize(
    "piece", ["[", "*", "**a", "<<", ">>", "\n", " ", "a", ".", "P.", "a. ", "Mr. ", "-", "******"]
)
def test_long_answers_are_read_in_a_moment(piece):
    text = piece * 50_000
    for name, (arguments, _, _) in CASES.items():
        start = time.process_time()
        CONSTRAINTS[name](text, arguments)
        # Seconds of this process; what grows with the square of the length would take minutes.
        assert time.process_time() - start < 10.0, name
