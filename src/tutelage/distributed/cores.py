"""Several processor cores at work on one thing each, with results that do not depend on how many.

    items ──> a thread per core, each computing alone ──> results, in the items' order

The products of a small model are too short to be divided among cores. Two threads with a
micro-batch each finish sooner than two threads inside every product, and as no sum is ever
divided, one core gives the same numbers, bit for bit, as eight.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch import nn

from tutelage.config.sharing import SMALL_MODEL

__all__ = ["Cores", "cores_for"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Cores:
    """Runs a function on many items, several at a time.

    torch lets go of Python's lock inside each operation, so that threads of one process compute
    side by side and share its weights. Functions must not write to what they share.
    """

    def __init__(self, count: int = 1) -> None:
        """Starts threads when they are first needed.

        Args:
            count: items worked on at a time; 1 works in the calling thread, whose operations may
                then use several threads themselves.

        Raises:
            ValueError: the count is below 1.
        """
        if count < 1:
            raise ValueError(f"found {count} cores, expected 1 or more")
        self.count = count
        self._pool: ThreadPoolExecutor | None = None

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The function's results in the order of the items.

        Whether gradients are recorded is as in the calling thread. When a call raises, those not
        begun are dropped, those under way are waited for, and the first item's exception is raised.
        """
        work = list(items)
        if self.count == 1 or len(work) < 2:
            return [function(item) for item in work]
        records = torch.is_grad_enabled()

        def call(item: Item) -> Result:
            with torch.set_grad_enabled(records):
                return function(item)

        futures = [self._threads().submit(call, item) for item in work]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
        wait(futures)
        failed = [future for future in futures if not future.cancelled() and future.exception()]
        return [future.result() for future in failed[:1] or futures]

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(
                self.count, "core", initializer=torch.set_num_threads, initargs=(1,)
            )
        return self._pool


def cores_for(model: nn.Module, count: int) -> Cores | None:
    """`count` cores for rows of their own each; None where they work together in every operation.

    The operations of a small model are too short to be divided, and undivided they give the same
    numbers on any machine: the calling thread computes alone from here on, too. The models of one
    task are of one size, so that any of them may be asked about.
    """
    weights = list(model.parameters())
    on_processor = all(weight.device.type == "cpu" for weight in weights)
    if not on_processor or sum(weight.numel() for weight in weights) > SMALL_MODEL:
        return None
    torch.set_num_threads(1)
    return Cores(count)
