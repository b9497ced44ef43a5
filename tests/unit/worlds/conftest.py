"""Prompts with a known record, so that expected scores can be worked out by hand."""

from collections.abc import Callable

import pytest

from tutelage.records import Message, Prompt

RECORD = (
    "name ana; plan basic; bill $47; due may 17; data 32gb; fee roaming; tenure 14 days; "
    "status active; waiver 9 months; outage 3h; paid mar 2; exit $140"
)


@pytest.fixture
def make_prompt() -> Callable[..., Prompt]:
    def build(category: str, question: str = "what is it?", record: str = RECORD) -> Prompt:
        return Prompt("p", (Message("user", f"{record} | {question}"),), category=category)

    return build
