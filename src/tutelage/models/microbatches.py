"""How rows are cut into micro-batches, and into smaller ones when memory runs out.

    rows, longest first ──budget of tokens──> equal micro-batches ──memory runs out──> half of it

A micro-batch is what goes through the model at once. How rows are cut changes no gradient: losses
are divided by the denominator of the whole minibatch.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TypeVar

from tutelage.config.training import READ_TOKENS
from tutelage.distributed import Cores
from tutelage.errors import TrainingError
from tutelage.models.memory import out_of_memory, release_memory

__all__ = ["BudgetHalved", "MicroBatches"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class BudgetHalved(Exception):
    """Memory has run out and the budget is smaller now: cut the rows again and go on."""


class MicroBatches:
    """Cuts rows up by a budget of tokens that never rises."""

    def __init__(
        self, tokens: int = READ_TOKENS, notify: Callable[[str], None] = _log.warning
    ) -> None:
        """Begins with the configured budget.

        Args:
            tokens: of a micro-batch, padding included.
            notify: hears of each halving.
        """
        self.tokens = tokens
        self._notify = notify

    def cut(self, rows: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """The rows as micro-batches of about the same number of tokens, an even number of them.

        Rows of like length are together, so that little of the budget is padding. Two cores, or
        four, have an equal share of an even number of equal parts, while what is cut does not
        depend on how many cores there are. What this budget has cut already stays as it is.

        Args:
            rows: row numbers, longest first.
            lengths: tokens of every row.
        """
        count = len(_cut(rows, lengths, self.tokens))
        if count < 2:
            yield from [list(rows)] * count
            return
        wanted = min(count + count % 2, len(rows))
        budgets = range(1, self.tokens)
        smallest = bisect_left(
            budgets, True, key=lambda tokens: len(_cut(rows, lengths, tokens)) <= wanted
        )
        yield from _cut(rows, lengths, budgets.start + smallest)

    def attempt(self, rows: Sequence[int], lengths: Sequence[int], compute: Callable[[], T]) -> T:
        """What `compute` makes of a micro-batch.

        Raises:
            BudgetHalved: memory ran out; whatever `compute` has left half done is the caller's.
            TrainingError: memory ran out at a single row.
        """
        try:
            return compute()
        except Exception as error:
            if not out_of_memory(error):
                raise
        # Here the error is gone, and with its traceback the tensors of the attempt.
        release_memory()
        self._halve(rows, lengths)
        raise BudgetHalved

    def each(
        self,
        planned: Sequence[Sequence[int]],
        lengths: Sequence[int],
        compute: Callable[[list[int]], T],
    ) -> Iterator[tuple[list[int], T]]:
        """Every micro-batch with what `compute` makes of it; one that does not fit is cut again."""
        for rows in planned:
            for part in self.cut(rows, lengths):
                try:
                    result = self.attempt(part, lengths, partial(compute, part))
                except BudgetHalved:
                    yield from self.each([part], lengths, compute)
                else:
                    yield part, result

    def read(
        self,
        lengths: Sequence[int],
        compute: Callable[[list[int]], T],
        cores: Cores | None = None,
    ) -> Iterator[tuple[list[int], T]]:
        """All rows once, the longest first.

        Args:
            lengths: tokens of every row.
            compute: takes the numbers of the rows of one micro-batch.
            cores: work on a micro-batch each.
        """
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        return self.read_planned(list(self.cut(order, lengths)), lengths, compute, cores)

    def values(
        self,
        lengths: Sequence[int],
        compute: Callable[[list[int]], Sequence[T]],
        cores: Cores | None = None,
    ) -> list[T]:
        """One value for every row, in the rows' order; `compute` gives those of some rows."""
        found: dict[int, T] = {}
        for rows, values in self.read(lengths, compute, cores):
            found.update(zip(rows, values, strict=True))
        return [found[row] for row in range(len(lengths))]

    def read_planned(
        self,
        planned: Sequence[Sequence[int]],
        lengths: Sequence[int],
        compute: Callable[[list[int]], T],
        cores: Cores | None = None,
    ) -> Iterator[tuple[list[int], T]]:
        """As `each`, several micro-batches at a time."""

        def part(rows: Sequence[int]) -> list[tuple[list[int], T]]:
            return list(self.each([rows], lengths, compute))

        return chain.from_iterable((cores or Cores()).map(part, planned))

    def _halve(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        longest = max(lengths[row] for row in rows)
        if len(rows) == 1:
            raise TrainingError(
                f"memory ran out at a single row of {longest} tokens: allow shorter rows "
                "(max_length; for PPO max_prompt_tokens and ppo.sampling.max_tokens), set "
                "precision.compute to bfloat16, or take a smaller model"
            )
        before, self.tokens = self.tokens, min(self.tokens, len(rows) * longest) // 2
        self._notify(
            f"memory ran out at {len(rows)} rows of up to {longest} tokens: micro-batches have "
            f"{self.tokens} tokens from here on instead of {before} (batch.microbatch_tokens)"
        )


def _cut(rows: Sequence[int], lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """As few parts as the budget allows; a row longer than it has a part of its own."""
    parts: list[list[int]] = []
    start = 0
    while start < len(rows):
        end = start + max(1, tokens // max(1, lengths[rows[start]]))
        parts.append(list(rows[start:end]))
        start = end
    return parts
