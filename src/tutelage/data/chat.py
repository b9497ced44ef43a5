"""Conversations as token ids, the same ids wherever they are needed.

    Prompt ────────encode_prompt────────> ids up to where the assistant begins to write
    conversation ──encode_demonstration─> ids and labels: what the assistant wrote, or -100
    conversation ──encode_conversation──> ids, for a reward model
    text ──────────encode_text──────────> ids of plain text, without roles

The model's own chat template decides the form. The ids of a prompt are the first ids of every
conversation that answers it, so that training sees what sampling saw. Nothing is ever cut:
what is too long is left out and counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tutelage.data.template import ChatCodec
from tutelage.data.tokenizer import CHATML_TEMPLATE, END_OF_TURN, START_OF_TURN
from tutelage.errors import DataError, ModelError
from tutelage.records import Demonstration, Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "IGNORED",
    "EncodedDemonstrations",
    "EncodedPrompts",
    "encode_conversation",
    "encode_conversations",
    "encode_demonstration",
    "encode_demonstrations",
    "encode_prompt",
    "encode_prompts",
    "encode_text",
    "encode_texts",
    "ensure_chat_template",
    "stop_token_ids",
]

IGNORED = -100
"""Label of a token that no loss is taken of; PyTorch's own default."""


@dataclass(frozen=True, slots=True)
class EncodedPrompts:
    """Prompts that fit, with their ids, and the number of those that do not."""

    prompts: list[Prompt]
    ids: list[list[int]]
    num_too_long: int


@dataclass(frozen=True, slots=True)
class EncodedDemonstrations:
    """(ids, labels) of each demonstration that fits, and the number of those that do not."""

    rows: list[tuple[list[int], list[int]]]
    num_too_long: int


def ensure_chat_template(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Gives a tokenizer without a chat template the ChatML one.

    Returns:
        The number of tokens added: the model's embeddings must grow by as many rows.
    """
    if tokenizer.chat_template is not None:
        return 0
    tokenizer.chat_template = CHATML_TEMPLATE
    return int(tokenizer.add_tokens([START_OF_TURN, END_OF_TURN], special_tokens=True))


def stop_token_ids(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The ids that end a completion.

    They are `eos_token`, the special token that the chat template puts after an assistant's
    text, and `<|endoftext|>` where the tokenizer has it: chat models have two or three.

    Raises:
        ModelError: there is none.
    """
    stops = ChatCodec(tokenizer).stops
    if not stops:
        raise ModelError("the tokenizer has no eos_token and its template ends no turn: set one")
    return frozenset(stops.values())


def encode_text(tokenizer: "PreTrainedTokenizerBase", text: str, *, end: bool = True) -> list[int]:
    """Ids of plain text: BOS where the tokenizer begins texts with one, text, end of text.

    Args:
        tokenizer: of the model that reads the text.
        text: strings of special tokens in it stay plain text.
        end: append `<|endoftext|>`, or `eos_token` where there is no such token.
    """
    return encode_texts(tokenizer, [text], end=end)[0]


def encode_texts(
    tokenizer: "PreTrainedTokenizerBase", texts: Iterable[str], *, end: bool = True
) -> list[list[int]]:
    """`encode_text` for many."""
    codec = ChatCodec(tokenizer)
    last = codec.end_of_text if end else []
    return [[*codec.begin, *codec.plain(text), *last] for text in texts]


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> list[int]:
    """Ids that a completion follows.

    In `chat` mode the conversation and the header of the assistant's turn, with BOS once if the
    template writes it. In `continuation` mode the text, begun as `encode_text` begins it.

    Raises:
        DataError: the template refuses the conversation.
        ModelError: the tokenizer has no chat template; see `ensure_chat_template`.
    """
    return _prompt_ids(ChatCodec(tokenizer), prompt)


def _prompt_ids(codec: ChatCodec, prompt: Prompt) -> list[int]:
    if prompt.mode == "continuation":
        return [*codec.begin, *codec.plain(prompt.text)]
    return codec.prompt(prompt.messages)


def encode_prompts(
    tokenizer: "PreTrainedTokenizerBase", prompts: Iterable[Prompt], max_length: int | None = None
) -> EncodedPrompts:
    """Encodes prompts and leaves out those of more than `max_length` tokens.

    Raises:
        DataError: none fits.
    """
    codec = ChatCodec(tokenizer)
    pairs = [(prompt, _prompt_ids(codec, prompt)) for prompt in prompts]
    fitting = [(prompt, ids) for prompt, ids in pairs if _fits(ids, max_length)]
    _require_some(fitting, len(pairs), "prompts", max_length)
    return EncodedPrompts(
        [prompt for prompt, _ in fitting], [ids for _, ids in fitting], len(pairs) - len(fitting)
    )


def encode_conversation(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]
) -> list[int]:
    """Ids of a conversation that ends with the assistant's message: what a reward model reads."""
    return encode_conversations(tokenizer, [messages])[0]


def encode_conversations(
    tokenizer: "PreTrainedTokenizerBase", conversations: Iterable[Sequence[Message]]
) -> list[list[int]]:
    """`encode_conversation` for many."""
    codec = ChatCodec(tokenizer)
    return [_labelled_ids(codec, messages)[0] for messages in conversations]


def encode_demonstration(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    max_length: int | None = None,
) -> tuple[list[int], list[int]]:
    """Ids of a conversation, and the label of each.

    The label of a token that the assistant wrote, the end of its turn included, is its id; that
    of any other is `IGNORED`. Padding plays no part: where pad and end are the same id, the end
    keeps its label.

    Raises:
        DataError: more than `max_length` tokens; the last message is not the assistant's; the
            rendered prompt is not the beginning of the rendered conversation.
        ModelError: no chat template, or one that never ends the assistant's turn.
    """
    ids, labels = _labelled_ids(ChatCodec(tokenizer), messages)
    if not _fits(ids, max_length):
        raise DataError(
            f"a conversation has {len(ids)} tokens, expected {max_length} at most: leave it out "
            "or raise the limit"
        )
    return ids, labels


def encode_demonstrations(
    tokenizer: "PreTrainedTokenizerBase",
    demonstrations: Iterable[Demonstration],
    max_length: int | None = None,
) -> EncodedDemonstrations:
    """Encodes demonstrations and leaves out those of more than `max_length` tokens.

    Raises:
        DataError: none fits, or one cannot be encoded; the message names its id.
    """
    codec = ChatCodec(tokenizer)
    rows = []
    for demonstration in demonstrations:
        try:
            rows.append(_labelled_ids(codec, demonstration.messages))
        except DataError as error:
            raise DataError(f"demonstration {demonstration.id!r}: {error}") from error
    fitting = [row for row in rows if _fits(row[0], max_length)]
    _require_some(fitting, len(rows), "demonstrations", max_length)
    return EncodedDemonstrations(fitting, len(rows) - len(fitting))


def _labelled_ids(codec: ChatCodec, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    labels: list[int] = []
    for piece, written in codec.conversation(messages):
        ids += piece
        labels += piece if written else [IGNORED] * len(piece)
    return ids, labels


def _fits(ids: Sequence[int], max_length: int | None) -> bool:
    return max_length is None or len(ids) <= max_length


def _require_some(left: Sequence[object], given: int, what: str, max_length: int | None) -> None:
    if not given:
        raise DataError(f"there are no {what} to encode")
    if not left:
        raise DataError(
            f"all {given} {what} have more than {max_length} tokens: raise the limit or take "
            "shorter ones"
        )
