"""Chat templates: what a tokenizer makes of messages, and which of its tokens mean what.

    messages ──special tokens in them hidden──> template ──> text ──cut where the assistant
    begins and ends to write──> pieces ──> ids, hidden strings restored as ordinary tokens

A template is trusted, the text in messages is not: `<|im_end|>` inside a message must not end
its turn. Templates run in the sandbox of transformers.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tutelage.data.tokenizer import END_OF_TEXT
from tutelage.errors import DataError, ModelError
from tutelage.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ChatCodec"]

_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
"""Unicode noncharacters around the number of a hidden string."""
_HIDDEN = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class ChatCodec:
    """Turns conversations and texts into ids with one tokenizer and its chat template."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self._special = {
            token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        longest_first = sorted(self._special, key=len, reverse=True)
        structure = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._structure = re.compile(f"({structure})")
        # The marker of hidden strings is hidden too: nobody can write one.
        self._to_hide = re.compile(f"{structure}|{_OPEN}")

    # What single tokens mean.

    @cached_property
    def begin(self) -> list[int]:
        """BOS, where the tokenizer puts it before texts by itself."""
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and self.tokenizer("a")["input_ids"][0] == bos else []

    @cached_property
    def end_of_text(self) -> list[int]:
        """What ends a plain text: `<|endoftext|>`, or `eos_token` where there is no such token."""
        end = self._special.get(END_OF_TEXT, self.tokenizer.eos_token_id)
        return [end] if end is not None else []

    @cached_property
    def stops(self) -> dict[str, int]:
        """The tokens that end a completion, with their ids."""
        found = (self.tokenizer.eos_token, END_OF_TEXT, self._end_of_turn())
        return {token: i for token, i in self._special.items() if token in found}

    @property
    def end_of_turn(self) -> int:
        """The token with which the assistant ends its turn and not the whole text.

        Raises:
            ModelError: the template ends no turn.
        """
        end = self._end_of_turn()
        if end is None:
            raise ModelError(
                "the chat template puts no special token after the assistant's text, so a turn "
                "would never end: a conversation needs a template that does"
            )
        return self._special[end]

    def _end_of_turn(self) -> str | None:
        """The first special token that the template puts after an assistant's text."""
        if self.tokenizer.chat_template is None:
            return None
        text = self.render((Message("user", "question"), Message("assistant", "reply")))
        match = self._structure.search(text, text.rfind("reply"))
        return match[0] if match else None

    # Text to ids.

    def plain(self, text: str) -> list[int]:
        """Ids of what somebody wrote: strings of special tokens become ordinary tokens."""
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(encoded["input_ids"])

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation and of the header of the assistant's turn."""
        hidden, strings = self._hide(messages)
        return self._encode([self.render(hidden, generation_prompt=True)], strings)[0]

    def conversation(self, messages: Sequence[Message]) -> list[tuple[list[int], bool]]:
        """Ids of a conversation in pieces, each with whether the assistant wrote it.

        Pieces are encoded apart where encoding them together would merge what the template
        wrote with what the assistant did: the sampler has the former before the latter exists.
        """
        hidden, strings = self._hide(messages)
        text, spans = self._written(hidden)
        cuts = sorted({0, len(text), *(cut for span in spans for cut in span)})
        starts = {start for start, _ in spans}
        pieces = [text[start:end] for start, end in pairwise(cuts)]
        ids = self._encode_pieces(pieces, strings)
        return [(piece, start in starts) for piece, start in zip(ids, cuts, strict=False)]

    def reply(
        self, asked: Sequence[Message], answer: str, messages: Sequence[Message]
    ) -> list[int]:
        """Ids between the end of the assistant's turn and where it begins to write again.

        Prompt, answer and these are what the template writes for the whole conversation, but for
        white space around the answer, which the policy wrote as it did.

        Args:
            asked: the conversation that the assistant answered.
            answer: what it wrote, without the end of its turn.
            messages: what was said to it.

        Raises:
            DataError: the template writes what came before otherwise now that there is more.
        """
        hidden, strings = self._hide([*asked, Message("assistant", answer), *messages])
        prompt = self.render(hidden[: len(asked)], generation_prompt=True)
        text = self.render(hidden, generation_prompt=True)
        written = re.escape(hidden[len(asked)].content.strip())
        end = re.compile(rf"\s*{written}\s*{re.escape(self._end_of_turn() or '')}")
        turn = end.match(text, len(prompt))
        if not text.startswith(prompt) or turn is None:
            raise DataError(
                f"{_drift(prompt + answer, text)}. Between two turns of a conversation the policy "
                "reads on where it stopped, so nothing before may change"
            )
        return self._encode_pieces([text[: turn.end()], text[turn.end() :]], strings)[1]

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The conversation as the template writes it."""
        from jinja2 import TemplateError

        self._require_template()
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [message.to_json() for message in messages],
                    tokenize=False,
                    add_generation_prompt=generation_prompt,
                )
            )
        except TemplateError as error:
            raise DataError(f"the chat template refuses the conversation: {error}") from error

    def _require_template(self) -> None:
        if self.tokenizer.chat_template is None:
            raise ModelError(
                "the tokenizer has no chat template: give it ChatML with ensure_chat_template, "
                "or use prompts of mode continuation"
            )

    def _hide(self, messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
        strings: list[str] = []

        def hide(match: re.Match[str]) -> str:
            strings.append(match[0])
            return f"{_OPEN}{len(strings) - 1}{_CLOSE}"

        hidden = [Message(m.role, self._to_hide.sub(hide, m.content)) for m in messages]
        return hidden, strings

    def _encode(self, texts: Sequence[str], strings: Sequence[str]) -> list[list[int]]:
        """Ids of rendered texts; no special token is added, so BOS is never doubled."""
        if not any(_OPEN in text for text in texts):
            return list(self.tokenizer(list(texts), add_special_tokens=False)["input_ids"])
        return [self._encode_hidden(text, strings) for text in texts]

    def _encode_hidden(self, text: str, strings: Sequence[str]) -> list[int]:
        ids: list[int] = []
        for part in self._structure.split(text):
            if part in self._special:
                ids.append(self._special[part])
            elif part:
                ids += self.plain(_HIDDEN.sub(lambda match: strings[int(match[1])], part))
        return ids

    def _encode_pieces(self, pieces: Sequence[str], strings: Sequence[str]) -> list[list[int]]:
        *apart, whole = self._encode([*pieces, "".join(pieces)], strings)
        if [i for ids in apart for i in ids] == whole:
            return apart
        # Some tokenizers spell a piece differently at the beginning of a text. Take its ids from
        # the text so far, unless that changes the ids before it.
        encoded: list[list[int]] = []
        before: list[int] = []
        for i, alone in enumerate(apart):
            together = self._encode(["".join(pieces[: i + 1])], strings)[0]
            extends = together[: len(before)] == before
            encoded.append(together[len(before) :] if extends else alone)
            before = before + encoded[-1]
        return encoded

    # What the assistant wrote.

    def _written(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """The rendered conversation, and where in it the assistant's texts and ends stand."""
        if not messages or messages[-1].role != "assistant":
            raise DataError("the last message is not the assistant's: there is nothing to learn")
        marked = _GENERATION.search(self.tokenizer.chat_template or "") is not None
        text, spans = self._marked(messages) if marked else self._by_prefix(messages)
        prompt = self.render(messages[:-1], generation_prompt=True)
        if not spans:
            raise ModelError("the chat template's generation block marks nothing: correct it")
        if not text.startswith(prompt):
            raise DataError(_drift(prompt, text))
        # A template may mark the header too; the policy is given it and does not write it.
        header = max(0, len(prompt) - spans[-1][0])
        ended = [(start + header, self._turn_end(text, end)) for start, end in spans]
        if not text[: ended[-1][1]].endswith(tuple(self.stops)):
            raise ModelError(
                "the chat template does not end the assistant's turn with a stop token "
                f"({', '.join(self.stops) or 'there is none'}): the policy would never learn to "
                "stop"
            )
        return text, ended

    def _turn_end(self, text: str, end: int) -> int:
        """`end`, moved over a stop token that follows it."""
        following = self._structure.match(text, end)
        return following.end() if following and following[0] in self.stops else end

    def _marked(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """Spans from the `generation` blocks of the template."""
        from transformers.utils.chat_template_utils import render_jinja_template

        known: dict[str, Any] = dict(self.tokenizer.special_tokens_map)
        # Annotated as one string; with the mask asked for it is a pair of lists.
        rendered: Any = render_jinja_template(
            conversations=[[message.to_json() for message in messages]],
            chat_template=self.tokenizer.get_chat_template(),
            return_assistant_tokens_mask=True,
            **known,
        )
        texts, spans = rendered
        return texts[0], [(start, end) for start, end in spans[0]]

    def _by_prefix(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """Spans from the difference that each of the assistant's messages makes."""
        text = self.render(messages)
        return text, list(self._differences(messages, text))

    def _differences(self, messages: Sequence[Message], text: str) -> Iterator[tuple[int, int]]:
        stop = re.compile("|".join(map(re.escape, self.stops)) or "(?!)")
        for i, message in enumerate(messages):
            if message.role != "assistant":
                continue
            prompt = self.render(messages[:i], generation_prompt=True)
            if not text.startswith(prompt):
                raise DataError(_drift(prompt, text))
            # Strings of special tokens in the message are hidden: the first stop is the turn's.
            end = stop.search(text, len(prompt))
            yield len(prompt), end.end() if end else len(text)


def _drift(prompt: str, text: str) -> str:
    same = next(
        (i for i, (a, b) in enumerate(zip(prompt, text, strict=False)) if a != b), len(text)
    )
    return (
        f"the chat template writes {prompt[same : same + 30]!r} in the prompt where the whole "
        f"conversation has {text[same : same + 30]!r}: the prompt must be the beginning of the "
        "conversation; use a template that rewrites no earlier turn"
    )
