"""Ragged random batches, garbage for what a mask hides, and ranks without processes."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor


@dataclass
class Ragged:
    """Per-token tensors as an update sees them, fp64, with holes and perhaps empty rows."""

    mask: Tensor
    logprobs: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor
    rewards: Tensor
    values: Tensor
    old_values: Tensor
    returns: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Ragged":
        return Ragged(*(change(getattr(self, item.name)) for item in fields(self)))

    def policy(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.logprobs, self.old_logprobs, self.advantages, self.mask

    def critic(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.values, self.old_values, self.returns, self.mask


@pytest.fixture(scope="session")
def ragged() -> Callable[[int], Ragged]:
    """`ragged(seed)`: 1 to 6 rows of 1 to 8 positions, each masked in with chance 0.6."""

    def build(seed: int) -> Ragged:
        random = torch.Generator().manual_seed(seed)
        rows = int(torch.randint(1, 7, (), generator=random))
        width = int(torch.randint(1, 9, (), generator=random))

        def normal(scale: float = 1.0) -> Tensor:
            return scale * torch.randn(rows, width, generator=random, dtype=torch.float64)

        mask = torch.rand(rows, width, generator=random) < 0.6
        old = -normal().abs() - 0.1
        return Ragged(
            mask=mask,
            logprobs=old + normal(0.3),
            old_logprobs=old,
            ref_logprobs=old + normal(0.3),
            advantages=normal(),
            # Rewards may lie only where the policy wrote.
            rewards=torch.where(mask, normal(), 0),
            values=normal(),
            old_values=normal(),
            returns=normal(),
        )

    return build


@pytest.fixture(scope="session")
def garbage() -> Callable[[Tensor, Tensor], Tensor]:
    """`garbage(x, mask)`: x with NaN, infinities and 1e9 at every masked position."""

    def spoil(x: Tensor, mask: Tensor) -> Tensor:
        rubbish = torch.tensor([torch.nan, 1e9, -torch.inf, torch.inf], dtype=x.dtype)
        filler = rubbish[torch.arange(x.numel()) % 4].view_as(x)
        return torch.where(mask, x, filler)

    return spoil


@pytest.fixture(scope="session")
def on_ranks() -> Callable[[Sequence[Callable[[Callable[[Tensor], Tensor]], Any]]], list[Any]]:
    """`on_ranks([f, g])`: runs one function per rank, in threads that share an `all_sum`."""

    def run(programs: Sequence[Callable[[Callable[[Tensor], Tensor]], Any]]) -> list[Any]:
        meeting = threading.Barrier(len(programs), timeout=20)
        parts: list[Any] = [None] * len(programs)
        results: list[Any] = [None] * len(programs)

        def rank(index: int) -> None:
            def all_sum(x: Tensor) -> Tensor:
                parts[index] = x
                meeting.wait()
                total = torch.stack(list(parts)).sum(0)
                meeting.wait()
                return total

            results[index] = programs[index](all_sum)

        threads = [threading.Thread(target=rank, args=(i,)) for i in range(len(programs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run
