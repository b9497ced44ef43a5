"""Answers to prompts as token ids, and which of the ids are the answer.

prompt ids │ answer, end of turn │ what the template writes behind it
    0      │         1           │         0                            weights
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tutelage.data.template import ChatCodec
from tutelage.errors import DataError
from tutelage.records import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["WeightedIds", "encode_answers"]

WeightedIds = tuple[tuple[int, ...], tuple[float, ...]]
"""Token ids, and 1 for each that the answer is made of, 0 for what it answers."""


def encode_answers(
    tokenizer: "PreTrainedTokenizerBase", answers: Iterable[tuple[Prompt, str]]
) -> list[WeightedIds]:
    """Ids of each prompt with its answer, with weights that select the answer.

    The token that ends the answer is part of it. What the assistant said earlier in the prompt is
    not: it was not chosen among others.

    Raises:
        DataError: one cannot be encoded; the message names its prompt.
        ModelError: the tokenizer has no chat template.
    """
    codec = ChatCodec(tokenizer)
    encoded = []
    for prompt, answer in answers:
        try:
            encoded.append(_encode(codec, prompt, answer))
        except DataError as error:
            raise DataError(f"an answer to prompt {prompt.id!r}: {error}") from error
    return encoded


def _encode(codec: ChatCodec, prompt: Prompt, answer: str) -> WeightedIds:
    if prompt.mode == "continuation":
        question = [*codec.begin, *codec.plain(prompt.text)]
        pieces = [(question, False), ([*codec.plain(answer), *codec.end_of_text], True)]
    else:
        pieces = codec.conversation((*prompt.messages, Message("assistant", answer)))
    last = max(number for number, (_, written) in enumerate(pieces) if written)
    ids = tuple(i for piece, _ in pieces for i in piece)
    weights = tuple(
        float(number == last) for number, (piece, _) in enumerate(pieces) for _ in piece
    )
    return ids, weights
