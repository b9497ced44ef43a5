"""A reward as a service over HTTP; see `tutelage.rewards.wire` for what is said.

request ──token──> body within limits ──items──> reward, one request at a time ──> scores
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tutelage.errors import ConfigError, MissingExtraError
from tutelage.network import is_loopback, serve_until_told
from tutelage.records import Completion, Prompt
from tutelage.rewards.reward import Reward
from tutelage.rewards.wire import SCORE_PATH, VERSION_PATH, read_item, score_row

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

__all__ = ["RewardService", "require_safe_address", "serve"]

_SHORTEST_TOKEN = 16
_GRACE_SECONDS = 60
"""For requests under way when the service is to end."""


@dataclass(frozen=True)
class RewardService:
    """What is served, to whom, and how much at once."""

    reward: Reward
    name: str
    version: str
    """Changes whenever a score might."""
    token: str
    max_items: int = 256
    max_bytes: int = 16 << 20
    close: Callable[[], None] = lambda: None
    """Called when the service ends."""

    def app(self) -> "FastAPI":
        """The application.

        Raises:
            MissingExtraError: FastAPI is not installed.
        """
        _require_packages()
        from fastapi import Depends, FastAPI, HTTPException, Request
        from fastapi.concurrency import run_in_threadpool

        expected = f"Bearer {self.token}".encode()

        def authorised(request: Request) -> None:
            given = request.headers.get("authorization", "").encode()
            if not secrets.compare_digest(given, expected):
                raise HTTPException(401, "wrong token", {"WWW-Authenticate": "Bearer"})

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            yield
            self.close()

        app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
        # A model and a process answer one caller at a time.
        turn = asyncio.Lock()

        @app.get("/health")
        async def health() -> dict[str, str]:
            return {"status": "ok"}

        @app.get(VERSION_PATH, dependencies=[Depends(authorised)])
        async def version() -> dict[str, Any]:
            limits = {"max_items": self.max_items, "max_bytes": self.max_bytes}
            return {"name": self.name, "version": self.version, **limits}

        @app.post(SCORE_PATH, dependencies=[Depends(authorised)])
        async def score(request: Request) -> dict[str, Any]:
            body = await _read(request, self.max_bytes)
            if body is None:
                raise HTTPException(413, f"a request has at most {self.max_bytes} bytes")
            try:
                ids, prompts, completions = _items(body, self.max_items)
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
                raise HTTPException(422, f"{type(error).__name__}: {error}"[:500]) from None
            async with turn:
                if await request.is_disconnected():
                    raise HTTPException(408, "nobody waits for the answer")
                scores = await run_in_threadpool(self.reward, prompts, completions)
            rows = [score_row(i, each) for i, each in zip(ids, scores, strict=True)]
            return {"version": self.version, "scores": rows}

        return app


async def _read(request: "Request", longest: int) -> bytes | None:
    """The body; None where it is too long, of which no more than the limit is held."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > longest:
            return None
    return bytes(body)


def _items(body: bytes, most: int) -> tuple[list[str], list[Prompt], list[Completion]]:
    rows = json.loads(body)["items"]
    if not isinstance(rows, list) or len(rows) > most:
        raise ValueError(f"items is a list of at most {most}")
    ids = [row["id"] for row in rows]
    if not all(isinstance(each, str) for each in ids) or len(set(ids)) < len(ids):
        raise ValueError("each item has an id of its own, a string")
    pairs = [read_item(row) for row in rows]
    return ids, [prompt for prompt, _ in pairs], [completion for _, completion in pairs]


def require_safe_address(host: str, token: str | None) -> None:
    """Refuses to be reached from other machines with a token that nobody has chosen.

    Args:
        host: to listen at.
        token: as given; None where one is to be generated.

    Raises:
        ConfigError: the address is not this machine's own and there is no token, or a short one.
    """
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise ConfigError(
            f"the token has {len(token)} characters, expected {_SHORTEST_TOKEN} or more: "
            "python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
        )
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"host {host} can be reached from other machines, and no token is set: set one in the "
            "environment (see --token-env), or listen at 127.0.0.1"
        )


def serve(service: RewardService, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Answers until SIGTERM or Ctrl-C; requests under way are finished first.

    Args:
        service: what is served.
        host, port: to listen at; port 0 takes a free one.
        announce: told the URL once connections are taken.

    Raises:
        ConfigError: the address cannot be listened at.
        MissingExtraError: FastAPI or uvicorn is not installed.
    """
    serve_until_told(service.app(), host, port, announce, grace=_GRACE_SECONDS)


def _require_packages(names: Sequence[str] = ("fastapi", "uvicorn")) -> None:
    for name in names:
        if find_spec(name) is None:
            raise MissingExtraError(name, "serve")
