"""A reward from a service over HTTP.

    prompts, completions ──known?──> cache
       └── the others, in batches ──POST──> service ──by id──> scores ──> cache
              └── retried with back-off; failed at the deadline, or where the service is down

Every item has a deadline, and so has the call. Whatever goes wrong fails the items it concerns,
with the reason; another version of the service in the middle of a run ends the run.
"""

import asyncio
import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import httpx2

from tutelage.errors import ConfigError, RewardError
from tutelage.judging.loop_thread import LoopThread
from tutelage.judging.retries import CircuitBreaker, backoff, retry_after
from tutelage.records import Completion, Prompt, Score, ScoreStatus
from tutelage.rewards.score_cache import ScoreCache
from tutelage.rewards.wire import SCORE_PATH, VERSION_PATH, item_of, match_scores
from tutelage.tracking.fingerprint import fingerprint

__all__ = ["RemoteLimits", "RemoteReward"]

Item = dict[str, Any]
Value = TypeVar("Value")

_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""


@dataclass(frozen=True)
class RemoteLimits:
    """How much is asked at once, for how long, and how often again."""

    batch_size: int = 32
    """Items in a request; fewer where the service takes fewer."""
    concurrency: int = 8
    """Requests on their way at the same time."""
    item_seconds: float = 60.0
    """From an item's first request to its score, retries included."""
    batch_seconds: float = 600.0
    """For all items of a call."""
    retries: int = 5
    """Requests made again where that may help."""
    first_pause: float = 0.5
    longest_pause: float = 30.0
    """Seconds before the first retry, and at most."""
    failures: int = 5
    """Requests in a row given up on that make the service count as down."""
    down_seconds: float = 30.0
    """How long a service that is down is not asked."""
    answer_bytes: int = 16 << 20
    """Longest answer that is read."""


class _FailedError(Exception):
    """A request that was given up on, and why."""


class RemoteReward:
    """Asks `tutelage serve-reward`, or whoever speaks as it does."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        limits: RemoteLimits | None = None,
        version: str | None = None,
        cache: ScoreCache | None = None,
        notify: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Says how the service is asked; `connect` or the first call asks it.

        Args:
            url: `http://host:port`, or with https and a path.
            token: the bearer token.
            limits: on time and size.
            version: the only one that is accepted; the first one found, when absent.
            cache: of scores that this version gave.
            notify: told what goes on without the caller.

        Raises:
            ConfigError: the URL is none, or the token cannot be sent.
        """
        if not token.isascii() or not token.isprintable() or not token:
            raise ConfigError("the reward service's token is empty or not of printable ASCII")
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL:
            parsed = httpx2.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ConfigError(f"reward service {url!r}: expected http://HOST:PORT or https://HOST")
        self.url, self.limits, self.version = url.rstrip("/"), limits or RemoteLimits(), version
        self.cache, self.notify = cache, notify
        self.counts: Counter[str] = Counter()
        """requests, retries, items, cached, timeout and error, since the beginning."""
        self._token, self._batch_size = token, self.limits.batch_size
        self._breaker = CircuitBreaker(self.limits.failures, self.limits.down_seconds)
        self._thread: LoopThread | None = None
        self._client: httpx2.AsyncClient | None = None

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """One score per completion; those that were not answered in time have failed.

        Raises:
            RewardError: the service cannot be reached at first, or its version has changed.
        """
        if self._client is None:
            self.connect()
        items = [item_of(p, c) for p, c in zip(prompts, completions, strict=True)]
        self.counts["items"] += len(items)
        keys = [fingerprint([self.version, item]) for item in items] if self.cache else []
        known = self._find(keys)
        scores: list[Score | None] = [None] * len(items)
        for i, key in enumerate(keys):
            if key in known:
                scores[i] = Score(known[key])
        asked = [i for i, score in enumerate(scores) if score is None]
        self.counts["cached"] += len(items) - len(asked)
        answers = self._run(self._score([items[i] for i in asked]))
        for i, score in zip(asked, answers, strict=True):
            scores[i] = score
            if not score.ok:
                self.counts[score.status.value] += 1
        fresh = zip(asked, answers, strict=True)
        self._keep({keys[i]: score.value for i, score in fresh if keys and score.ok})
        return [score for score in scores if score is not None]

    def connect(self) -> None:
        """Asks the service for its version and its limits.

        Raises:
            RewardError: it cannot be reached, refuses the token, or has not the version asked for.
        """
        try:
            row = self._run(self._probe())
        except _FailedError as error:
            raise RewardError(f"reward service {self.url}: {error}") from None
        self._batch_size = max(1, min(self._batch_size, _whole(row.get("max_items"))))

    async def _probe(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self.limits.item_seconds):
                row = await self._ask("GET", VERSION_PATH)
        except TimeoutError:
            raise _FailedError(f"no answer in {self.limits.item_seconds:g} s") from None
        self._check_version(row)
        return row

    async def _score(self, items: Sequence[Item]) -> list[Score]:
        limits = self.limits
        late = f"no answer before the batch's {limits.batch_seconds:g} s ended"
        scores = [Score.failed(ScoreStatus.TIMEOUT, late)] * len(items)
        # One item may be a long conversation: what counts is how many are on their way.
        slots = asyncio.Semaphore(limits.concurrency)

        async def fill(start: int) -> None:
            part = slice(start, start + self._batch_size)
            async with slots:
                scores[part] = await self._score_part(items[part])

        starts = range(0, len(items), self._batch_size)
        tasks = [asyncio.ensure_future(fill(start)) for start in starts]
        try:
            if tasks:
                await asyncio.wait(
                    tasks, timeout=limits.batch_seconds, return_when=asyncio.FIRST_EXCEPTION
                )
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome
        return scores

    async def _score_part(self, items: Sequence[Item]) -> list[Score]:
        # No answer to anything else has these ids, however late it comes.
        ids = [uuid.uuid4().hex for _ in items]
        body = {"items": [{"id": i, **item} for i, item in zip(ids, items, strict=True)]}
        seconds = self.limits.item_seconds
        if not self._breaker.allow():
            pause = f"not asked for {self.limits.down_seconds:g} s: it counts as down"
            return [Score.failed(ScoreStatus.ERROR, f"{self.url} is {pause}")] * len(items)
        succeeded = False
        try:
            async with asyncio.timeout(seconds):
                answer = await self._ask("POST", SCORE_PATH, body)
            self._check_version(answer)
            rows = answer.get("scores")
            if not isinstance(rows, list):
                raise _FailedError("its answer has no list of scores")
            succeeded = True
            return match_scores(ids, rows)
        except TimeoutError:
            return [Score.failed(ScoreStatus.TIMEOUT, f"no answer in {seconds:g} s")] * len(items)
        except _FailedError as error:
            return [Score.failed(ScoreStatus.ERROR, f"{self.url}: {error}")] * len(items)
        finally:
            self._breaker.record(succeeded)

    async def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One request, made again where that may help."""
        limits = self.limits
        pauses = backoff(limits.retries, limits.first_pause, limits.longest_pause)
        while True:
            self.counts["requests"] += 1
            asked_for = 0.0
            try:
                status, headers, content = await self._exchange(method, path, body)
                if status == 200:
                    return _object(content)
                reason = f"HTTP {status}"
                if status not in _RETRYABLE:
                    raise _FailedError(_refusal(status))
                asked_for = retry_after(headers)
            except httpx2.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            pause = next(pauses, None)
            if pause is None:
                raise _FailedError(f"{reason}, after {limits.retries + 1} requests")
            self.counts["retries"] += 1
            await asyncio.sleep(max(pause, asked_for))

    async def _exchange(
        self, method: str, path: str, body: Any
    ) -> tuple[int, httpx2.Headers, bytes]:
        if self._client is None:
            # The environment's proxies and .netrc are not asked: the token is for this service.
            self._client = httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {self._token}", "Accept-Encoding": "identity"},
                timeout=None,  # The deadlines are the caller's, over all that is waited for.
                limits=httpx2.Limits(max_connections=self.limits.concurrency),
                trust_env=False,
            )
        content = bytearray()
        async with self._client.stream(method, self.url + path, json=body) as response:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > self.limits.answer_bytes:
                    raise _FailedError(f"its answer exceeds {self.limits.answer_bytes} bytes")
        return response.status_code, response.headers, bytes(content)

    def _check_version(self, answer: dict[str, Any]) -> None:
        version = answer.get("version")
        if not isinstance(version, str):
            raise _FailedError("its answer names no version")
        if self.version is None:
            self.version = version
        if version != self.version:
            raise RewardError(
                f"reward service {self.url} is of version {version!r}, expected {self.version!r}: "
                "scores of two versions cannot be compared; serve the one expected, or begin anew"
            )

    def _find(self, keys: Sequence[str]) -> dict[str, float]:
        try:
            return self.cache.find(keys) if self.cache else {}
        except sqlite3.Error as error:
            return self._without_cache(error)

    def _keep(self, scores: dict[str, float]) -> None:
        try:
            if self.cache and scores:
                self.cache.keep(scores)
        except sqlite3.Error as error:
            self._without_cache(error)

    def _without_cache(self, error: sqlite3.Error) -> dict[str, float]:
        assert self.cache is not None
        self.notify(f"the cache of scores {self.cache.path} is no longer used: {error}")
        self.cache = None
        return {}

    def _run(self, work: Coroutine[Any, Any, Value]) -> Value:
        if self._thread is None:
            self._thread = LoopThread("reward service")
        return self._thread.run(work)

    def close(self) -> None:
        """Closes the connections and the cache."""
        if self._thread is not None:
            if self._client is not None:
                self._thread.run(self._client.aclose())
            self._thread.close()
        self._thread = self._client = None
        if self.cache is not None:
            self.cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _FailedError(f"its answer is no JSON object: {content[:80]!r}")
    return value


def _refusal(status: int) -> str:
    if status in (401, 403):
        return f"it refuses the token (HTTP {status}): set the one it was started with"
    return f"it refuses the request (HTTP {status})"


def _whole(value: Any) -> int:
    """A limit that a service names; none where it names none."""
    return value if isinstance(value, int) and value > 0 else 1 << 30
