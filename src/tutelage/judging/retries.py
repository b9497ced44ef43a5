"""When a service that failed is asked again: back-off with jitter, and a circuit breaker.

closed ──`limit` requests in a row failed──> open ──`seconds` later──> one trial
   ^                                          ^                          │
   └─────────────── it succeeded ─────────────┼──────── it failed ───────┘
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping

__all__ = ["CircuitBreaker", "backoff", "retry_after"]


def backoff(
    retries: int, first: float, longest: float, draw: Callable[[], float] = random.random
) -> Iterator[float]:
    """Seconds to wait before each retry: doubled every time, and cut by up to a half.

        d_k = min(longest, first 2^k) (1 + u_k) / 2,    u_k uniform in [0, 1)

    Those who failed together do not come back together.
    """
    for k in range(retries):
        yield min(longest, first * 2.0**k) * (1.0 + draw()) / 2.0


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a service asks to wait; 0 for a date, which few services send."""
    value = headers.get("retry-after", "")
    return float(value) if value.isdecimal() else 0.0


class CircuitBreaker:
    """Spares a service that is down the requests, and a training the wait for each of them."""

    def __init__(
        self, limit: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: failures in a row that open it, how long it stays open, and what tells the time."""
        self.limit, self.seconds, self.clock = limit, seconds, clock
        self._failures = 0
        self._open = False
        self._next_trial = 0.0

    @property
    def open(self) -> bool:
        """Whether the service counts as down."""
        return self._open

    def allow(self) -> bool:
        """Whether a request may be made now; of an open one's, one in `seconds`."""
        if not self.open:
            return True
        if self.clock() < self._next_trial:
            return False
        self._next_trial = self.clock() + self.seconds
        return True

    def record(self, succeeded: bool) -> None:
        """What became of a request that was made."""
        if succeeded:
            self._failures, self._open = 0, False
            return
        self._failures += 1
        if self.open or self._failures >= self.limit:
            self._open = True
            self._next_trial = self.clock() + self.seconds
