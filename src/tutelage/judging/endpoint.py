"""A model behind an OpenAI-compatible endpoint, asked through the official client.

    POST /chat/completions    a reply, with the likeliest tokens where the endpoint gives them
    POST /decisions           the labels' probabilities, from models that decide and do not write

The client's own retries are off: each attempt is a request of its own to the budget.
"""

import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tutelage.errors import ConfigError, MissingExtraError
from tutelage.judging.reply import AskError, JudgeRequest, ModelReply, Token
from tutelage.judging.retries import retry_after
from tutelage.network import is_loopback

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Decision
    from openai.types.chat import ChatCompletion

__all__ = ["OPENAI_URL", "EndpointModel", "token_from_environment"]

OPENAI_URL = "https://api.openai.com/v1"
_LIKELIEST = 20
"""Tokens that are asked for in each place; no endpoint gives more."""
_DECIDE = "Decide what the conversation ends by asking for."
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed."""
_HOPELESS = frozenset({401, 402, 403, 404})
"""Answers that every other request will get, too."""


def token_from_environment(url: str, name: str) -> str:
    """The token in an environment variable; endpoints on this machine may do without.

    Args:
        url: of the endpoint.
        name: of the variable; empty where the endpoint takes whoever comes.

    Raises:
        ConfigError: there is none, and the endpoint is elsewhere.
    """
    if token := os.environ.get(name):
        return token
    if not name or _on_this_machine(url):
        return "none"
    raise ConfigError(
        f"the model at {url} needs a token: set {name} in the environment, or name the variable "
        "that holds it (token_env)"
    )


class EndpointModel:
    """A model by its name at a URL."""

    def __init__(
        self,
        model: str,
        url: str,
        token: str,
        *,
        extra: Mapping[str, Any] | None = None,
        decisions: bool = False,
    ) -> None:
        """Says who is asked; nothing is asked yet.

        Args:
            model: as the endpoint calls it.
            url: up to and including `/v1`.
            token: the bearer token.
            extra: more fields of every request, such as `{"chat_template_kwargs": {...}}`.
            decisions: ask for decisions, where one of several labels is to be replied.

        Raises:
            ConfigError: the URL is none.
            MissingExtraError: the official client is not installed.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"model at {url!r}: expected http://HOST:PORT/v1 or https://HOST/v1")
        if find_spec("openai") is None:
            raise MissingExtraError("openai", "judge")
        self.model, self.url, self.extra = model, url.rstrip("/"), dict(extra or {})
        self._token, self._gives_logprobs, self._decisions = token, True, decisions
        self._client: AsyncOpenAI | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    @property
    def identity(self) -> dict[str, Any]:
        """Model, URL, the fields that go with every request, and what is asked for."""
        row = {"endpoint": self.url, "model": self.model, "extra": self.extra}
        return row | ({"decisions": True} if self._decisions else {})

    async def ask(self, request: JudgeRequest) -> ModelReply:
        """One chat completion, or one decision.

        Raises:
            AskError: there is none, or it has no text.
        """
        import httpx2
        import openai

        try:
            if self._decisions and request.labels:
                return _read_decision(await self._decide(request))
            completion = await self._complete(request)
        except openai.APIStatusError as error:
            raise self._refused(error) from None
        except openai.APITimeoutError as error:
            raise AskError(f"{error}", again=True, maybe_billed=True) from None
        except openai.APIConnectionError as error:
            reason = f"{self.url} cannot be reached ({error.__cause__ or error}): is it running?"
            sent = not isinstance(error.__cause__, httpx2.ConnectError)
            raise AskError(reason, again=True, maybe_billed=sent) from None
        except (openai.OpenAIError, ValueError, RecursionError) as error:
            reason = f"{self.url} did not answer with a chat completion: {error}"
            raise AskError(reason, again=True, maybe_billed=True) from None
        return self._read(completion)

    async def _complete(self, request: JudgeRequest) -> "ChatCompletion":
        """Without log-probabilities where the endpoint refuses to be asked for them."""
        import openai

        create = self._connected().chat.completions.create
        if request.logprobs and self._gives_logprobs:
            try:
                listed: dict[str, Any] = {"logprobs": True, "top_logprobs": _LIKELIEST}
                found: ChatCompletion = await create(**self._body(request), **listed)
                return found
            except openai.BadRequestError as error:
                if "logprob" not in error.message:
                    raise
                self._gives_logprobs = False
        completion: ChatCompletion = await create(**self._body(request))
        return completion

    async def _decide(self, request: JudgeRequest) -> "Decision":
        choices = [{"value": label} for label in request.labels]
        question = {"type": "choice", "instructions": _DECIDE, "choices": choices}
        body: dict[str, Any] = {
            "model": self.model,
            "input": [message.to_json() for message in request.messages],
            "questions": [question],
        }
        if self.extra:
            body["extra_body"] = self.extra
        return await self._connected().decisions.create(**body)

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()
        self._client = None

    def _connected(self) -> "AsyncOpenAI":
        if self._client is None:
            import httpx2
            from openai import AsyncOpenAI

            # An environment's proxy is for what lies outside this machine.
            transport = httpx2.AsyncClient(trust_env=not _on_this_machine(self.url), timeout=None)
            self._client = AsyncOpenAI(
                api_key=self._token,
                base_url=self.url,
                max_retries=0,
                timeout=None,  # The deadlines are the caller's, over all that is waited for.
                http_client=transport,
            )
        return self._client

    def _body(self, request: JudgeRequest) -> dict[str, Any]:
        # OpenAI itself no longer takes the name that all others do.
        longest = "max_completion_tokens" if self.url == OPENAI_URL else "max_tokens"
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [message.to_json() for message in request.messages],
            "temperature": request.temperature,
            "seed": request.sample,
            longest: request.max_tokens,
        }
        if self.extra:
            body["extra_body"] = self.extra
        return body

    def _refused(self, error: Any) -> AskError:
        status, said = error.status_code, " ".join(str(error.message).split())[:300]
        if status in (401, 403):
            return AskError(f"{self.url} refuses the token (HTTP {status}): {said}", hopeless=True)
        if status == 404:
            reason = f"{self.url} knows no model {self.model!r} or no chat completions: {said}"
            return AskError(f"{reason} (HTTP 404). Check --model and --url", hopeless=True)
        return AskError(
            f"HTTP {status}: {said}",
            again=status in _AGAIN,
            pause=retry_after(error.response.headers),
            hopeless=status in _HOPELESS,
        )

    def _read(self, completion: "ChatCompletion") -> ModelReply:
        # The client does not check what it was sent against its types.
        try:
            choice = completion.choices[0]
            text = choice.message.content or ""
            listed = choice.logprobs.content if choice.logprobs is not None else None
            tokens = None if not listed else tuple(map(_token, listed))
            usage = completion.usage
            cut = choice.finish_reason == "length"
            counted: tuple[int | None, int | None] = (None, None)
            if usage is not None:
                counted = (int(usage.prompt_tokens), int(usage.completion_tokens))
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            reason = f"{self.url} answered with no chat completion ({error})"
            raise AskError(reason, again=True, maybe_billed=True) from None
        return ModelReply(text, tokens, *counted, cut)


def _read_decision(decision: "Decision") -> ModelReply:
    """A refusal is a reply without a label, and so unreadable."""
    try:
        (answer,) = decision.answers
        counted = (int(decision.usage.input_tokens), int(decision.usage.output_tokens))
        if answer.type != "choice":
            return ModelReply("", (), *counted)
        likeliest = {str(each.value): float(each.probability) for each in answer.probabilities}
        text = str(answer.choice)
    except (AttributeError, TypeError, ValueError) as error:
        reason = f"the endpoint answered with no decision ({error})"
        raise AskError(reason, again=True, maybe_billed=True) from None
    return ModelReply(text, (Token(text, likeliest),), *counted)


def _token(row: Any) -> Token:
    likeliest: dict[str, float] = {}
    for each in row.top_logprobs or ():
        probability = math.exp(min(0.0, float(each.logprob)))
        likeliest[each.token] = max(probability, likeliest.get(each.token, 0.0))
    likeliest.setdefault(row.token, math.exp(min(0.0, float(row.logprob))))
    return Token(str(row.token), likeliest)


def _on_this_machine(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")
