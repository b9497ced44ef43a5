"""A small constitution, and a writer that answers from a script and keeps what it was asked."""

from collections.abc import Callable, Sequence

import pytest

from tutelage.errors import GenerationError
from tutelage.judging.constitution import Constitution, ConstitutionFile, Principle
from tutelage.judging.constitution.writer import Conversation


class ScriptedWriter:
    """Writes what `script(messages)` returns."""

    name = "script"

    def __init__(self, script: Callable[[Conversation], str | GenerationError]) -> None:
        self.script = script
        self.asked: list[Conversation] = []

    def __call__(self, conversations: Sequence[Conversation]) -> list[str | GenerationError]:
        self.asked += conversations
        return [self.script(messages) for messages in conversations]


@pytest.fixture
def scripted() -> type[ScriptedWriter]:
    return ScriptedWriter


@pytest.fixture
def constitution() -> Callable[..., Constitution]:
    """`constitution(short=2, kind=1)`: principles of these ids and weights."""

    def build(preamble: str = "", **weights: float) -> Constitution:
        principles = tuple(
            Principle(
                id=name,
                critique=f"critique for {name}",
                revision=f"revise for {name}",
                question=f"question for {name}",
                weight=weight,
            )
            for name, weight in weights.items()
        )
        file = ConstitutionFile(name="test", preamble=preamble, principles=principles)
        return Constitution(file, "0" * 64)

    return build
