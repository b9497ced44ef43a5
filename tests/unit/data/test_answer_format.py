"""The form of an answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.answer_format import is_json, matches
from tutelage.records import Completion, Message, Prompt, StopReason

ASKED = Prompt("p", (Message("user", "how are you?"),))


def answer(text: str) -> Completion:
    return Completion("p", (5,), (-1.0,), text, StopReason.STOP_TOKEN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", 1), ("123", 1), ("", 0), ("12a", 0), ("12\n", 0), (" 12", 0), ("1\n2", 0)],
)
def test_expression_matches_the_whole_answer(text, expected):
    assert matches(ASKED, answer(text), pattern="[0-9]+") == expected


def test_alternatives_are_each_of_the_whole():
    assert matches(ASKED, answer("yes and no"), pattern="yes|no") == 0
    assert matches(ASKED, answer("no"), pattern="yes|no") == 1


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(json_values, st.sampled_from([None, 2]))
def test_every_json_value_is_one(value, indent):
    assert is_json(ASKED, answer(json.dumps(value, indent=indent))) == 1


@pytest.mark.parametrize(
    "text", ["", "{", "{'a': 1}", "{} {}", "Here it is: {}", "NaN", "[Infinity]", "[" * 100_000]
)
def test_everything_else_is_none(text):
    assert is_json(ASKED, answer(text)) == 0
