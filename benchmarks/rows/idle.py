"""H8: the share of an update in which the GPU has nothing to do.

    GPU   ▒▒▒▒  ▒▒▒▒▒▒▒    ▒▒▒      kernels and copies, of all streams together
          └──────────────────┘      idle: what lies between them, up to the end of the update

Measured by torch's profiler over the update of H4, one epoch. What keeps a GPU waiting is Python,
launches, and numbers that are read back.

    ours   `Learner.fit` with the loss that `ppo` gives it
    peer   the epochs of `PPOTrainer.train`, tuned
"""

from collections.abc import Iterable
from typing import Any

from benchmarks.core.row import NotAvailable, Row, Side
from benchmarks.rows.overhead import OurOverhead, TRLOverhead
from benchmarks.rows.ppo import ppo_requests

__all__ = ["OurIdle", "TRLIdle", "h8", "idle_share"]


def h8(quick: bool) -> Row:
    """135M."""
    requests = ppo_requests("H4", quick)
    here = "benchmarks.rows.idle"
    options = {"requests": requests, "epochs": 1, "device": "cuda"}
    ours = {**options, "dtype": "bfloat16", "microbatch_tokens": 65536}
    tuned = {**options, "bf16": True, "microbatch": 8 if quick else 32}
    return Row(
        "H8",
        f"share of an update in which the GPU is idle, {requests['shape']}, "
        f"{requests['count']} rows",
        "<= 5 %",
        [
            Side("tutelage", f"{here}:OurIdle", ours, format="bfloat16", gated=True),
            Side("TRL tuned", f"{here}:TRLIdle", tuned, "peer", "bfloat16"),
        ],
        quantities=("idle",),
        device="cuda",
    )


class OurIdle(OurOverhead):
    """The update under the profiler."""

    def prepare(self) -> None:
        """Runs `ppo` up to its update, and that once.

        Raises:
            NotAvailable: there is no GPU.
        """
        if self.device != "cuda":
            raise NotAvailable(f"there is no GPU that could be idle: the row runs on {self.device}")
        super().prepare()

    def read(self, profiler: Any) -> dict[str, float]:
        """The idle share."""
        return _idle(profiler)


class TRLIdle(TRLOverhead):
    """The epochs of one call of TRL's `train` under the profiler."""

    def read(self, profiler: Any) -> dict[str, float]:
        """The idle share."""
        return _idle(profiler)


def _idle(profiler: Any) -> dict[str, float]:
    events = profiler.events()
    ranges = [(event.time_range.start, event.time_range.end) for event in events]
    # Annotations span kernels and the gaps between them.
    working = [
        span
        for span, event in zip(ranges, events, strict=True)
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]
    begin, end = min(start for start, _ in ranges), max(end for _, end in ranges)
    return {"idle": idle_share(working, begin, end)}


def idle_share(working: Iterable[tuple[float, float]], begin: float, end: float) -> float:
    """The share of a span that no interval covers; intervals may overlap.

    Args:
        working: start and end of each interval, within the span.
        begin, end: of the span.
    """
    covered, reached = 0.0, begin
    for start, stop in sorted(working):
        covered += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return 1.0 - covered / (end - begin)
