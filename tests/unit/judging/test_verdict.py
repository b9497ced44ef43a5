import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.judging.prompt import GRADES, SIDES
from tutelage.judging.reply import ModelReply, Token
from tutelage.judging.verdict import distribution, expectation, read_label, shares


def reply(text: str, *places: dict[str, float]) -> ModelReply:
    return ModelReply(text, tuple(Token(next(iter(place)), place) for place in places))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A", "A"),
        (" b\n", "B"),
        ("**A**", "A"),
        ("(B)", "B"),
        ("[[A]]", "A"),
        ("Answer: A", "A"),
        ("Final verdict: **B**.", "B"),
        ("A.", "A"),
        ("`A`", "A"),
    ],
)
def test_label_is_read_whatever_stands_around_it(text, label):
    assert read_label(text, SIDES) == label


@pytest.mark.parametrize(
    ("text", "label"), [("1", "1"), ("10", "10"), ("Rating: 7", "7"), ("3.", "3"), ("\n10\n", "10")]
)
def test_grade_is_read(text, label):
    assert read_label(text, GRADES) == label


@pytest.mark.parametrize(
    "text", ["11", "0", "7/10", "7.5", "-3", "seven", "7 or 8", "1 0", "10 out of 10", "٣"]
)
def test_what_is_no_grade_is_not_read(text):
    assert read_label(text, GRADES) is None


@given(st.text(max_size=40))
def test_text_is_a_label_or_nothing(text):
    assert read_label(text, SIDES) in (None, *SIDES)


def test_spellings_of_a_label_count_together():
    found = distribution(
        reply("A", {"A": 0.4, " A": 0.2, "B": 0.1, "▁B": 0.1, "x": 0.2}), SIDES, 0.5
    )
    assert found == pytest.approx({"A": 0.75, "B": 0.25})


def test_place_is_where_the_label_stands():
    spoken = reply("Answer: A", {"Answer": 1.0}, {":": 1.0}, {" A": 0.7, " B": 0.3})
    assert distribution(spoken, SIDES, 0.5) == pytest.approx({"A": 0.7, "B": 0.3})


def test_beginning_of_another_word_is_not_the_place():
    # Some tokenizers begin "Answer" with a token "A".
    spoken = reply(
        "Answer: B", {"A": 0.9, "B": 0.1}, {"nswer": 1.0}, {": ": 1.0}, {"B": 0.8, "A": 0.2}
    )
    assert distribution(spoken, SIDES, 0.5) == pytest.approx({"A": 0.2, "B": 0.8})


def test_mass_below_the_least_is_unreadable():
    spoken = reply("A", {"A": 0.3, "B": 0.1, "well": 0.6})
    assert distribution(spoken, SIDES, 0.41) is None
    assert distribution(spoken, SIDES, 0.39) == pytest.approx({"A": 0.75, "B": 0.25})


def test_ones_are_not_counted_where_they_may_begin_a_ten():
    # The reply began with 8; whether 1 would have gone on to 10 nobody knows.
    spoken = reply("8", {"8": 0.8, "1": 0.2})
    found = distribution(spoken, GRADES, 0.5)
    assert found["8"] == 1.0
    assert expectation(found) == pytest.approx(8.0)


def test_ten_as_a_token_of_its_own_makes_ones_ones():
    found = distribution(reply("8", {"8": 0.5, "1": 0.25, "10": 0.25}), GRADES, 0.5)
    assert expectation(found) == pytest.approx(8 * 0.5 + 1 * 0.25 + 10 * 0.25)


def test_shares_leave_out_what_cannot_be_read():
    replies = [ModelReply(text) for text in ("A", "A", "B", "hm")]
    assert shares(replies, SIDES) == pytest.approx({"A": 2 / 3, "B": 1 / 3})
    assert shares(replies[:2] + [ModelReply("hm")] * 3, SIDES) is None
    assert shares([], SIDES) is None


def test_expectation_of_certainty_is_the_grade():
    assert expectation({grade: float(grade == "4") for grade in GRADES}) == 4.0
