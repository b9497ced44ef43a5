"""A question with a reference, and an answer to it."""

from collections.abc import Callable

import pytest

from tutelage.records import Message, Prompt


@pytest.fixture
def asked() -> Callable[..., Prompt]:
    """`asked(reference, **check)`: a prompt with what it is checked against."""

    def make(reference: str | None = None, *, text: str = "how many?", **check) -> Prompt:
        return Prompt("p", (Message("user", text),), reference=reference, check=check)

    return make
