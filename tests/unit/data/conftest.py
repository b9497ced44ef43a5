"""Tokenizers trained on a few sentences; the ids of one can be worked out by hand."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from tutelage.data.tokenizer import train_tokenizer

CORPUS = [
    "Hello there, where is my order? Yes, it is on its way. No, it is not.",
    "The order was sent to you on Friday.\n\n\nIt is on its way to you.\n\n\nThank you.",
    "Yes. No. Yes. No. A or B? A. B.",
] * 20


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Four special tokens and the 256 bytes."""
    return train_tokenizer(["x"], 260)


@pytest.fixture(scope="session")
def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """With merges learned from a small corpus."""
    return train_tokenizer(CORPUS, 400)


@pytest.fixture(scope="session")
def byte_ids() -> Callable[[str], list[int]]:
    """Ids of a text for `byte_tokenizer`, from GPT-2's table of bytes and no tokenizer.

    GPT-2 writes printable bytes as themselves and the others as U+0100 and up; the 256 letters
    follow the four special tokens in the order of their code points.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    place = {byte: 4 + i for i, byte in enumerate([*printable, *others])}

    def encode(text: str) -> list[int]:
        return [place[byte] for byte in text.encode()]

    return encode
