"""The final number: which one it is, how it is read, and that no other is accepted."""

import time
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tutelage.records import Message, Prompt, ScoreStatus
from tutelage.rewards.verifiers.number import FinalNumber, final_number

VERIFIER = FinalNumber()


def score(reference: str, text: str) -> float:
    return VERIFIER.verify(Prompt("p", (Message("user", "?"),), reference=reference), text).value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 18", "18"),
        ("She has 3 and 4.\n#### 7", "7"),
        ("#### 5\nNo, that is wrong.\n#### 7", "7"),
        ("The answer is 1,234.50", "2469/2"),
        ("The answer is 18. There were 2 of them.", "18"),
        ("the answer is 3 + 4 = 7", "7"),
        ("**Answer:** 12 apples", "12"),
        ("so \\boxed{18} it is, all 3 of us agree", "18"),
        ("\\boxed{\\text{about } 18}", "18"),
        ("It costs $18.00.", "18"),
        ("It costs -$5", "-5"),
        ("it is \u22127", "-7"),
        ("5 - 12 = -7", "-7"),
        ("= - 7", "-7"),
        ("half, that is 50%", "50"),
        ("3/4", "3/4"),
        ("1e3", "1000"),
        ("2.5 million people", "2500000"),
        ("(18)", "18"),
        ("**18**", "18"),
        ("18 km.", "18"),
        (".5", "1/2"),
        ("She has 18", "18"),
    ],
)
def test_the_final_number_is_found(text, number):
    assert final_number(text) == Fraction(number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no idea",
        "#### ",
        "#### 18 or 19",
        "The answer is 17, 18 or 19",
        "\\boxed{17, 18, 19}",
        "1.234,50",
        "1,23",
        "3/4/2025",
        "18:30",
        "5\u00b2",
        "2^10",
        "20 - 2",
        "20 / 2",
        "#### --18",
        "- 18",
        "1 1/2",
        "10/0",
        "1e99999",
        "x2",
        "covid-19",
        "\u0661\u0668",  # 18 in Arabic digits
        "\uff11\uff18",  # 18 in full-width digits
        "1\u0668",
        "\u2460\u2467",
        "9" * 5000,
        "0." + "3" * 5000,
    ],
)
def test_what_cannot_be_read_for_certain_is_no_answer(text):
    assert final_number(text) is None
    assert score("18", text) == 0.0


def test_a_prompt_without_a_number_to_compare_with_is_unscorable(asked):
    for reference in (None, "blue", ""):
        score = VERIFIER.verify(asked(reference), "18")
        assert score.status is ScoreStatus.UNSCORABLE
        assert "has no reference that is a number" in score.notes


def test_what_was_found_is_told(asked):
    assert VERIFIER.verify(asked("18"), "it is 19").notes == "found 19, expected 18"
    assert VERIFIER.verify(asked("18"), "no idea").notes == "found no number, expected 18"


VALUES = st.integers(-(10**9), 10**9)
WORDS = st.lists(
    st.sampled_from(["so", "she", "has", "apples", "and", "then,", "we", "see:", "\n", "yes!"]),
    max_size=8,
).map(" ".join)
FORMS = (
    "{n}",
    "{n}.",
    " {n} \n",
    "**{n}**",
    "{grouped}",
    "{n}.00",
    "{n}.0 km",
    "{n} %",
    "= {n}",
    "#### {n}",
    "####{n}",
    "The answer is {n}.",
    "the final answer is: {n} apples",
    "Answer: {grouped}",
    "\\boxed{{{n}}}",
    "\\boxed{{{grouped}}}\n",
)


@given(value=VALUES, before=WORDS, form=st.sampled_from(FORMS))
def test_formatting_never_changes_the_verdict(value, before, form):
    text = f"{before} {form.format(n=value, grouped=f'{value:,}')}"
    assert score(str(value), text) == 1.0
    assert score(f"{value:,}", text) == 1.0


@given(value=VALUES, other=VALUES, before=WORDS, form=st.sampled_from(FORMS))
def test_a_wrong_number_is_never_accepted(value, other, before, form):
    assume(value != other)
    text = f"{before} {form.format(n=other, grouped=f'{other:,}')}"
    assert score(str(value), text) == 0.0


@given(value=VALUES, working=st.lists(VALUES, max_size=6))
def test_the_working_before_the_mark_does_not_count(value, working):
    text = " and ".join(map(str, working))
    assert score(str(value), f"{text}\n#### {value}") == 1.0


@given(value=VALUES, others=st.sets(VALUES, min_size=1, max_size=30), mark=st.sampled_from(FORMS))
def test_listing_many_numbers_behind_a_mark_earns_nothing(value, others, mark):
    assume(others != {value})
    listed = ", ".join(map(str, sorted({*others, value})))
    assert score(str(value), f"#### {listed}") == 0.0
    assert score(str(value), f"The answer is {listed}") == 0.0


@given(st.text(max_size=300))
@example("-" * 300)
@example("#### " * 60)
def test_no_text_breaks_the_reading(text):
    assert score("18", text) in (0.0, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "1" * 100_000,
        "1," * 50_000,
        "1." * 50_000,
        "1 " * 50_000,
        "1/" * 50_000,
        "-" * 100_000 + "1",
        "#### " * 20_000,
        "answer is " * 10_000,
        "answer" + " " * 100_000,
        "\\boxed{" * 15_000,
        "\\boxed{" + "{" * 100_000,
        "1e" * 50_000,
        "\u0661" * 100_000,
    ],
    ids=lambda text: text[:12],
)
def test_long_and_hostile_answers_are_read_at_once(text):
    start = time.process_time()
    assert score("18", text) == 0.0
    # Seconds of this process; what grows with the square of the length would take minutes.
    assert time.process_time() - start < 10.0
