"""Evaluation prompts that also occur in training data.

Prompts are compared by a hash of what users and assistants said in them, without case, system
messages and differences in white space. A training conversation leaks a test prompt when any
of its turns answers exactly that prompt, so earlier turns count too.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage.data.text import normalize

__all__ = ["PromptIndex", "asked"]

_PLAIN = ("text", "sent_more", "sent_less")
"""Fields of rows without a conversation whose whole text is the prompt."""

_LINE_BITS = 40
"""File and line share one integer, a third of the size of a pair."""


class PromptIndex:
    """Where each prompt of some files stands; 8-byte hashes keep a million prompts small."""

    def __init__(self) -> None:
        self._files: list[str] = []
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        """Number of different prompts."""
        return len(self._places)

    def add(self, row: Mapping[str, Any], file: str, line: int) -> None:
        """Remembers the prompt of a row of any schema."""
        if not self._files or self._files[-1] != file:
            self._files.append(file)
        keys = list(_keys(row))
        # Of a conversation, what it asks as a whole: its first turns alone are no prompt of it.
        asked = keys[-1:] if "prompt" in row or "messages" in row else keys
        for key in asked:
            self._places.setdefault(key, (len(self._files) - 1) << _LINE_BITS | line)

    def find(self, row: Mapping[str, Any]) -> tuple[str, int] | None:
        """File and line of a remembered prompt that the row also asks, in any of its turns."""
        for key in _keys(row):
            if key in self._places:
                place = self._places[key]
                return self._files[place >> _LINE_BITS], place & (1 << _LINE_BITS) - 1
        return None


def asked(row: Mapping[str, Any]) -> str:
    """What a row of any schema asks: all that was said before its last answer, without system
    messages; empty where it asks nothing.
    """
    conversation = row.get("prompt", row.get("messages"))
    if not isinstance(conversation, list):
        return next((row[key] for key in _PLAIN if isinstance(row.get(key), str)), "")
    said: list[str] = []
    end = 0
    for message in conversation:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            break
        if message.get("role") != "system":
            said.append(message["content"])
        if message.get("role") in ("user", "tool"):
            end = len(said)
    return "\n".join(said[:end])


def _keys(row: Mapping[str, Any]) -> Iterator[int]:
    """A hash for each prompt of the row: each beginning of its conversation that awaits a reply."""
    conversation = row.get("prompt", row.get("messages"))
    if isinstance(conversation, list):
        yield from _conversation_keys(conversation)
        return
    for key in _PLAIN:
        if isinstance(row.get(key), str):
            yield hash((normalize(row[key]).casefold(),))


def _conversation_keys(messages: Sequence[Any]) -> Iterator[int]:
    said: tuple[str, ...] = ()
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return
        role = message.get("role")
        if role == "system":
            continue
        said = (*said, normalize(message["content"]).casefold())
        if role in ("user", "tool"):
            yield hash(said)
