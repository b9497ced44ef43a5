"""Asks a model that judges or writes: once each question, within the budget, again if that helps.

request ──key──> cache ──known──────────────────────────────> reply
                   └─ budget ──reserve──> model ──settle──> cache ──> reply
                                            └─ failed: back-off, or given up
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.errors import JudgeError
from tutelage.judging.budget import Budget
from tutelage.judging.cache import JudgeCache, Known, Spent
from tutelage.judging.reply import AskError, JudgeModel, JudgeRequest, ModelReply
from tutelage.judging.retries import backoff
from tutelage.tracking.fingerprint import fingerprint

__all__ = ["AskLimits", "Asker", "BudgetSpentError", "GivenUpError"]


class GivenUpError(Exception):
    """A question without a reply, and why."""


class BudgetSpentError(Exception):
    """Another request might exceed the budget."""


@dataclass(frozen=True)
class AskLimits:
    """How much is asked at once, for how long, and how often again."""

    concurrency: int = 8
    """Requests on their way at the same time."""
    seconds: float = 120.0
    """For one request."""
    retries: int = 8
    """Requests made again where that may help."""
    first_pause: float = 0.5
    longest_pause: float = 60.0
    """Seconds before the first retry, and at most."""
    failures: int = 10
    """Questions in a row given up on, after which the model counts as out of reach."""


class Asker:
    """Replies of one model, each asked for once."""

    def __init__(
        self,
        model: JudgeModel,
        cache: JudgeCache | None = None,
        *,
        budget: Budget | None = None,
        limits: AskLimits | None = None,
        notify: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Says what is asked and how.

        Args:
            model: that replies.
            cache: of its replies; one in memory, when absent.
            budget: over all that was spent through the cache.
            limits: on time and number.
            notify: told what goes on without the caller.
        """
        self.model, self.cache = model, JudgeCache() if cache is None else cache
        self.budget, self.limits = budget or Budget(), limits or AskLimits()
        self.notify = notify
        self.counts: Counter[str] = Counter()
        """requests, retries, cached and failed, since the beginning."""
        self.spent = Spent()
        """Since the beginning; `cache.spent` has all there ever was."""
        self._under_way: dict[str, asyncio.Task[Known]] = {}
        self._slots = asyncio.Semaphore(self.limits.concurrency)
        self._settled = asyncio.Condition()
        self._open = 0
        self._failures_in_a_row = 0
        self._replied = False
        self._ended: JudgeError | None = None
        """Why no more is asked, until those who asked have been told."""

    async def ask(self, content: Mapping[str, Any], request: JudgeRequest) -> Known:
        """The reply to a request, from the cache or from the model.

        Args:
            content: what the question is about, without the key of its fences.
            request: as the model is asked.

        Raises:
            GivenUpError: there is no reply.
            BudgetSpentError: asking might exceed the budget.
            JudgeError: the model cannot be asked at all.
        """
        key = fingerprint([dict(self.model.identity), request.settings, dict(content)])
        if (known := self.cache.find(key)) is not None:
            self.counts["cached"] += 1
            return known
        if key not in self._under_way:
            self._under_way[key] = asyncio.ensure_future(self._ask(key, request))
            self._under_way[key].add_done_callback(lambda _: self._under_way.pop(key, None))
        # Whoever else waits for the same reply is not to lose it when one of them is cancelled.
        return await asyncio.shield(self._under_way[key])

    async def finish(self, *, cancel: bool) -> None:
        """Waits for requests that nobody waits for any more, or ends them."""
        left = list(self._under_way.values())
        for task in left if cancel else ():
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self._ended = None

    async def _ask(self, key: str, request: JudgeRequest) -> Known:
        pauses = backoff(self.limits.retries, self.limits.first_pause, self.limits.longest_pause)
        while True:
            try:
                async with self._slots:
                    if self._ended is not None:
                        raise self._ended
                    known = await self._ask_once(key, request)
                self._failures_in_a_row, self._replied = 0, True
                return known
            except JudgeError as error:
                self._ended = error
                raise
            except AskError as error:
                pause = next(pauses, None) if error.again else None
                if pause is None:
                    raise self._given_up(error) from None
                self.counts["retries"] += 1
                await asyncio.sleep(max(pause, min(error.pause, self.limits.longest_pause)))

    async def _ask_once(self, key: str, request: JudgeRequest) -> Known:
        worst = self.budget.worst(request)
        number = await self._reserve(worst)
        spent = worst
        reply: ModelReply | None = None
        try:
            self.counts["requests"] += 1
            async with asyncio.timeout(self.limits.seconds):
                reply = await self.model.ask(request)
            spent = self.budget.of(reply, worst)
        except TimeoutError:
            reason = f"no reply in {self.limits.seconds:g} s"
            raise AskError(reason, again=True, maybe_billed=True) from None
        except AskError as error:
            spent = worst if error.maybe_billed else Spent()
            raise
        finally:
            # Also when it was cancelled: whether it was billed is not known then.
            created = self.cache.settle(number, spent, key, reply)
            self.spent += spent
            await self._release()
        return Known(reply, created)

    async def _reserve(self, worst: Spent) -> int:
        async with self._settled:
            while True:
                number = self.cache.reserve(worst, self.budget.limit)
                if number is not None:
                    self._open += 1
                    return number
                if self._open == 0:
                    raise BudgetSpentError
                await self._settled.wait()

    async def _release(self) -> None:
        async with self._settled:
            self._open -= 1
            self._settled.notify_all()

    def _given_up(self, error: AskError) -> Exception:
        self.counts["failed"] += 1
        self._failures_in_a_row += 1
        if error.hopeless:
            self._ended = JudgeError(f"{self.model.name}: {error}")
            return self._ended
        in_a_row, most = self._failures_in_a_row, self.limits.failures
        # A single request may be refused for its length; if all are, it is not the requests.
        never = not self._replied and (error.again or in_a_row >= most)
        if never or (error.again and in_a_row >= most):
            self._ended = JudgeError(
                f"{self.model.name} cannot be asked, {in_a_row} in a row had to be given up: "
                f"{error}. Replies so far are kept in the cache: run the same again to go on"
            )
            return self._ended
        return GivenUpError(str(error))
