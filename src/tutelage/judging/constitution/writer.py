"""Who criticises, revises and compares in words: the protocol, and a conversation for it.

conversations ──Writer──> what comes next in each: a text, or the error for which there is none

Writers: `tutelage.generation.LocalWriter` (a policy in this process), `AskedWriter` (any
OpenAI-compatible service), `tutelage.worlds.helpdesk.HelpdeskReviser` (the built-in world's rules).
"""

from collections.abc import Sequence
from typing import Protocol

from tutelage.errors import GenerationError
from tutelage.records import Message

__all__ = ["Conversation", "Writer", "with_preamble"]

Conversation = tuple[Message, ...]
"""Messages of which the last is the user's, as a rule: the assistant's turn comes next."""


class Writer(Protocol):
    """Writes the next message of conversations."""

    name: str
    """Who writes: a model's name and version, for provenance."""

    def __call__(self, conversations: Sequence[Conversation]) -> Sequence[str | GenerationError]:
        """The next message of each, in order.

        Where there is none that can be used, because the service failed or the token limit cut the
        text off, its place is taken by the error that says why. One failure does not end the
        others.
        """
        ...


def with_preamble(preamble: str, messages: Conversation) -> Conversation:
    """The conversation with a system message that begins with `preamble`."""
    if not preamble:
        return messages
    if messages and messages[0].role == "system":
        joined = Message("system", f"{preamble}\n\n{messages[0].content}")
        return (joined, *messages[1:])
    return (Message("system", preamble), *messages)
