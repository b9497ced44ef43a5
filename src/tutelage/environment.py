"""Whom the policy talks to: the protocol of conversations of several turns.

    Prompt ──reset──> Environment
    policy ──answer──> step(conversation so far) ──> Reply(messages) ──> policy, and so on
                                                 └─> Reply()             the conversation is over

An environment is plain Python about messages. What becomes of tokens, masks and the chat template
is the business of `tutelage.generation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tutelage.records import Message, Prompt

__all__ = ["Environment", "Reply"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What an environment says to the assistant's last answer."""

    messages: Sequence[Message] = ()
    """Turns of the user or of tools; none ends the conversation."""
    reward: float = 0.0
    """What the answer earned, beside what the recipe's reward gives for it."""


class Environment(Protocol):
    """One conversation's other side; each conversation has an environment of its own."""

    def reset(self, prompt: Prompt, seed: int) -> None:
        """Begins the conversation that `prompt` opens; the policy answers it next.

        Args:
            prompt: with the messages that the policy reads first.
            seed: of all that is random in it: the same seed and answers give the same replies.
        """
        ...

    def step(self, messages: Sequence[Message]) -> Reply:
        """Replies to a conversation that ends with the assistant's answer."""
        ...
