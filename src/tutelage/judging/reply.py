"""What is asked of a judge model and what it replies, whoever runs it.

JudgeRequest ──JudgeModel.ask──> ModelReply      AskError: why not, and whether to ask again
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

from tutelage.records import Message

__all__ = ["AskError", "JudgeModel", "JudgeRequest", "ModelReply", "Token"]


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """One question, as it goes to a model."""

    messages: tuple[Message, ...]
    labels: tuple[str, ...]
    """What may be replied; empty where any text may."""
    max_tokens: int
    temperature: float = 0.0
    logprobs: bool = True
    """Whether the tokens' probabilities are wanted."""
    sample: int = 0
    """Number of the sample, where several are drawn of one question."""

    @property
    def settings(self) -> dict[str, Any]:
        """All but the messages."""
        row = asdict(self)
        del row["messages"]
        return row


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a reply, and the likeliest tokens in its place."""

    text: str
    likeliest: Mapping[str, float]
    """Text -> probability, itself among them."""


@dataclass(frozen=True, slots=True)
class ModelReply:
    """What a model replied."""

    text: str
    tokens: tuple[Token, ...] | None = None
    """None where the model does not give probabilities."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """As counted by whoever ran the model; None where they do not say."""
    cut: bool = False
    """Whether the longest length ended it."""

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        tokens = row["tokens"]
        return cls(
            row["text"],
            None if tokens is None else tuple(Token(t["text"], t["likeliest"]) for t in tokens),
            row["prompt_tokens"],
            row["completion_tokens"],
            row.get("cut", False),
        )


class AskError(Exception):
    """A request without a reply."""

    def __init__(
        self,
        reason: str,
        *,
        again: bool = False,
        pause: float = 0.0,
        maybe_billed: bool = False,
        hopeless: bool = False,
    ) -> None:
        """Says what is known of it.

        Args:
            reason: for people.
            again: whether the same request may succeed later.
            pause: seconds that the service asks to wait.
            maybe_billed: the request may have been answered, and paid for.
            hopeless: no other request will succeed either.
        """
        super().__init__(reason)
        self.again, self.pause = again, pause
        self.maybe_billed, self.hopeless = maybe_billed, hopeless


class JudgeModel(Protocol):
    """A language model that replies to a judge's questions."""

    @property
    def name(self) -> str:
        """The model's own name, for the record."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that its replies depend on beside the request."""
        ...

    async def ask(self, request: JudgeRequest) -> ModelReply:
        """One reply.

        Raises:
            AskError: there is none.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...
