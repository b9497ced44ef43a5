"""The reference word for word."""

import pytest

from tutelage.records import ScoreStatus
from tutelage.rewards.verifiers.exact import Exact


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("valid", "valid"),
        (" Valid.\n", "valid"),
        ('"valid"', "valid"),
        ("**valid**", "valid"),
        ("So the answer is valid.", "valid"),
        ("#### valid", "valid"),
        ("] ] >", "] ] >"),
        ("(B)", "(B)"),
        ("B", "(B)"),
        ("a  b\nc", "a b c"),
        ("caf\u0065\u0301", "caf\u00e9"),
    ],
)
def test_what_does_not_count_does_not_matter(text, reference, asked):
    assert Exact().verify(asked(reference), text).value == 1.0


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("invalid", "valid"),
        ("valid or invalid", "valid"),
        ("", "valid"),
        ("The answer is invalid.", "valid"),
        ("not valid", "valid"),
        ("] ]", "] ] >"),
        ("b a c", "a b c"),
        ("vаlid", "valid"),  # noqa: RUF001 -- with a Cyrillic a
    ],
)
def test_anything_else_is_wrong(text, reference, asked):
    assert Exact().verify(asked(reference), text).value == 0.0


def test_without_a_reference_nothing_can_be_said(asked):
    assert Exact().verify(asked(), "valid").status is ScoreStatus.UNSCORABLE
