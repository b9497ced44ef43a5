"""Judged pairs that differ in what a test is about."""

from collections.abc import Callable

import pytest

from tutelage.records import Comparison, Message, Preference, Prompt


@pytest.fixture
def judged() -> Callable[..., Preference]:
    """`judged("better", "worse")`: a preference; every call is another prompt unless told."""
    made = 0

    def build(
        a: str,
        b: str,
        p_a: float = 1.0,
        *,
        prompt: str = "",
        source: str = "",
        category: str = "",
        **fields,
    ) -> Preference:
        nonlocal made
        made += 1
        name = prompt or f"prompt-{made}"
        asked = Prompt(name, (Message("user", name),), source=source, category=category)
        return Preference(Comparison(asked, a, b), p_a, "anna", **fields)

    return build
