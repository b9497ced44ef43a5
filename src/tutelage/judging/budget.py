"""How much a judge may spend; it stops before, not after.

    worst case of a request ──reserve──> fits ──ask──> settle at what it cost
                                └─ does not: wait for those under way, then stop

The worst case counts a token for every byte of the messages, which no tokenizer exceeds, and the
longest reply.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.errors import ConfigError
from tutelage.judging.cache import Spent
from tutelage.judging.reply import JudgeRequest, ModelReply
from tutelage.records import Message

__all__ = ["Budget", "longest_prompt"]

_TOKENS_AROUND = 16
"""That a chat template writes around a message, at most."""
_PER = 1e6
"""Prices are given for a million tokens."""


@dataclass(frozen=True)
class Budget:
    """Limits over everything that was ever spent through the same cache, and prices."""

    tokens: int | None = None
    """Of prompts and replies together; None for no limit."""
    cost: float | None = None
    """In the prices' currency; None for no limit."""
    price_in: float = 0.0
    """Of a million tokens of prompts."""
    price_out: float = 0.0
    """Of a million tokens of replies."""

    def __post_init__(self) -> None:
        """Refuses a limit on money without prices, and numbers below 0."""
        given = (self.tokens, self.cost, self.price_in, self.price_out)
        if any(value is not None and not value >= 0 for value in given):
            raise ConfigError(f"a judge's budget and prices are 0 or above, found {given}")
        if self.cost is not None and not self.price_in + self.price_out > 0:
            raise ConfigError(
                "a judge's budget in money needs prices: set price_in and price_out, of a million "
                "tokens, or limit the tokens instead"
            )

    @property
    def limit(self) -> Spent:
        """Both limits; infinite where there is none."""
        tokens = self.tokens if self.tokens is not None else 1 << 62
        return Spent(tokens, self.cost if self.cost is not None else math.inf)

    def worst(self, request: JudgeRequest) -> Spent:
        """The most that a request may cost."""
        return self._spent(longest_prompt(request.messages), request.max_tokens)

    def of(self, reply: ModelReply, worst: Spent) -> Spent:
        """What a reply cost; the worst case where the model does not say."""
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            return worst
        return self._spent(reply.prompt_tokens, reply.completion_tokens)

    def _spent(self, prompt: int, completion: int) -> Spent:
        cost = (prompt * self.price_in + completion * self.price_out) / _PER
        return Spent(prompt + completion, cost)


def longest_prompt(messages: Sequence[Message]) -> int:
    """Tokens that the messages cannot exceed."""
    return _TOKENS_AROUND + sum(len(m.content.encode()) + _TOKENS_AROUND for m in messages)
