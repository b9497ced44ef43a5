"""Encoded prompts of different lengths."""

from collections.abc import Callable, Sequence

import pytest

from tutelage.records import EncodedPrompt, Message, Prompt


@pytest.fixture(scope="session")
def encoded() -> Callable[..., list[EncodedPrompt]]:
    """`encoded([5, 6], [7])`: prompts "p0", "p1" with these token ids."""

    def build(*rows: Sequence[int]) -> list[EncodedPrompt]:
        return [
            EncodedPrompt(Prompt(f"p{i}", (Message("user", f"question {i}"),)), tuple(row))
            for i, row in enumerate(rows)
        ]

    return build
