"""A writer behind any OpenAI-compatible endpoint.

conversations ──`concurrency` at a time──> /chat/completions ──> texts, or why there is none
                                             └ the client retries what may pass, with back-off
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tutelage.errors import ConfigError, GenerationError, MissingExtraError
from tutelage.judging.constitution.writer import Conversation

__all__ = ["EndpointLimits", "EndpointWriter"]

_HOPELESS = frozenset({401, 403, 404})
"""Statuses that every other request would meet too: wrong key, no access, no such model."""


@dataclass(frozen=True)
class EndpointLimits:
    """How much is asked for, at once and again."""

    max_tokens: int = 512
    """Of a text; one that is cut off there is a failure."""
    temperature: float = 0.7
    concurrency: int = 8
    """Requests on their way at the same time."""
    retries: int = 4
    """Made by the client where the same request may succeed later."""
    seconds: float = 120.0
    """For one attempt."""


class EndpointWriter:
    """Asks a chat model over HTTP, one conversation per request."""

    def __init__(
        self, url: str, model: str, *, key: str = "", limits: EndpointLimits | None = None
    ) -> None:
        """Prepares the client; nothing is asked yet.

        Args:
            url: of the service, down to `/v1`.
            model: as the service calls it.
            key: the service's key; local services need none.
            limits: of texts and requests.

        Raises:
            MissingExtraError: openai is not installed.
        """
        try:
            from openai import OpenAI
        except ImportError as error:
            raise MissingExtraError("openai", "judge") from error
        self.name = model
        self.limits = limits or EndpointLimits()
        self._client = OpenAI(
            base_url=url,
            api_key=key or "none",
            max_retries=self.limits.retries,
            timeout=self.limits.seconds,
        )

    @classmethod
    def with_key_from(
        cls, variable: str, url: str, model: str, *, limits: EndpointLimits | None = None
    ) -> "EndpointWriter":
        """As the constructor, with the key that an environment variable holds.

        Raises:
            ConfigError: the variable is named and not set.
        """
        key = os.environ.get(variable, "") if variable else ""
        if variable and not key:
            raise ConfigError(
                f"the environment variable {variable} is not set: put the endpoint's key there, or "
                "set endpoint.token_env to '' where none is needed"
            )
        return cls(url, model, key=key, limits=limits)

    def __call__(self, conversations: Sequence[Conversation]) -> list[str | GenerationError]:
        """See `Writer`.

        Raises:
            GenerationError: the service refuses the key or does not know the model.
        """
        with ThreadPoolExecutor(self.limits.concurrency) as pool:
            return list(pool.map(self._write, conversations))

    def close(self) -> None:
        """Closes the connections; closing twice is harmless."""
        self._client.close()

    def _write(self, conversation: Conversation) -> str | GenerationError:
        from openai import APIStatusError, OpenAIError

        messages: Any = [message.to_json() for message in conversation]
        try:
            reply = self._client.chat.completions.create(
                model=self.name,
                messages=messages,
                max_tokens=self.limits.max_tokens,
                temperature=self.limits.temperature,
            )
        except APIStatusError as error:
            if error.status_code in _HOPELESS:
                raise GenerationError(
                    f"{self._client.base_url} answered {error.status_code} for model "
                    f"{self.name!r}: {error.message}"
                ) from error
            return GenerationError(f"status {error.status_code}: {error.message}")
        except OpenAIError as error:
            return GenerationError(f"{type(error).__name__}: {error}")
        return self._text(reply)

    def _text(self, reply: Any) -> str | GenerationError:
        if not getattr(reply, "choices", None):
            return GenerationError("the endpoint answered without a choice")
        choice = reply.choices[0]
        if choice.finish_reason == "length":
            return GenerationError(f"cut off at {self.limits.max_tokens} tokens")
        return str(choice.message.content or "")
