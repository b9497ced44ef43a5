"""Multiple choice: which letter an answer decides for."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.records import ScoreStatus
from tutelage.rewards.verifiers.choice import Choice, chosen_letter

CHOICES = {"A": "bank", "B": "library", "C": "department store", "D": "mall", "I": "ink"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("b", "B"),
        ("b)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("B) library", "B"),
        ("A. bank", "A"),
        ("A bank", "A"),
        ("The answer is (B).", "B"),
        ("the answer is: B", "B"),
        ("The answer is B, and I am sure of it.", "B"),
        ("The answer is B, a library.", "B"),
        ("Answer: B, since books are lent there.", "B"),
        ("A is tempting, but the answer is D.", "D"),
        ("The answer is library.", "B"),
        ("\\boxed{C}", "C"),
        ("#### D", "D"),
        ("Library.", "B"),
        ("It must be (D), where people shop.", "D"),
    ],
)
def test_the_letter_is_found(text, letter):
    assert chosen_letter(text, CHOICES) == letter


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I think it is a bank.",
        "A bank is where money is kept.",
        "The answer is a secret.",
        "The answer is (A) or (B).",
        "The answer is B or A.",
        "The answer is B, A",
        "B or A",
        "The answer is A, B, C or D",
        "#### A B C D",
        "A B C D",
        "(A) (B) (C) (D)",
        "It might be (B), or else (D).",
        "ABCD",
        "A. bank B. library",
        "bank library",
        "E",
        "\uff22",  # a full-width B
        "\u212c",
    ],
)
def test_an_answer_that_does_not_decide_earns_nothing(text, asked):
    assert chosen_letter(text, CHOICES) is None
    for reference in CHOICES:
        assert Choice().verify(asked(reference, choices=CHOICES), text).value == 0.0


def test_choices_may_stand_in_the_prompt(asked):
    prompt = asked("(B)", text="Where?\nOptions:\n(A) bank\n(B) library")
    verify = Choice().verify
    assert [verify(prompt, text).value for text in ("library", "(B)", "bank", "(A)", "Z")] == [
        1.0,
        1.0,
        0.0,
        0.0,
        0.0,
    ]


def test_a_reference_that_is_no_letter_is_unscorable(asked):
    for reference in (None, "bank", "7"):
        assert Choice().verify(asked(reference), "A").status is ScoreStatus.UNSCORABLE


FORMS = (
    "{x}",
    " ({x}) ",
    "**{x}**",
    "{x}.",
    "The answer is {x}.",
    "It is clear.\nthe answer is ({x})",
    "Answer: **{x}**",
    "\\boxed{{{x}}}",
    "#### {x}",
)


@given(right=st.sampled_from("BCD"), said=st.sampled_from("ABCD"), form=st.sampled_from(FORMS))
def test_form_never_changes_the_verdict(right, said, form):
    assert (chosen_letter(form.format(x=said), CHOICES) == right) is (said == right)


@given(st.text(max_size=200))
def test_no_text_breaks_the_reading(text):
    assert chosen_letter(text, CHOICES) in {None, *CHOICES}


@pytest.mark.parametrize("piece", ["(A)", "A ", "[", "(", "answer is ", "\\boxed{", "####", "\n"])
def test_long_and_hostile_answers_are_read_at_once(piece, asked):
    start = time.process_time()
    text = piece * 30_000
    assert Choice().verify(asked("B", choices=CHOICES), text + "(B)" + text).value in (0.0, 1.0)
    # Seconds of this process; what grows with the square of the length would take minutes.
    assert time.process_time() - start < 10.0
