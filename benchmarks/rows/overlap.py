"""H7: scoring while the sampler still decodes.

To be timed: the update of H4 with reference, critic and reward model on a stream of their own,
against the same in one stream. The project scores a round when its last completion has ended; as
long as that is so, the row says that it is not available.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.core.row import NotAvailable, Row, Side, clocks
from benchmarks.rows.ppo import ppo_requests

__all__ = ["OverlappedScoring", "h7"]


def h7(quick: bool) -> Row:
    """135M on a GPU."""
    requests = ppo_requests("H4", quick)
    options = {"requests": requests, "device": "cuda"}
    return Row(
        "H7",
        f"PPO update, {requests['shape']}, {requests['count']} episodes, scoring beside decoding",
        ">= 1.15x one stream at equal reward",
        [Side("tutelage", "benchmarks.rows.overlap:OverlappedScoring", options)],
        quantities=clocks("cuda"),
        device="cuda",
    )


class OverlappedScoring:
    """What there is no door to."""

    def __init__(self, requests: Mapping[str, Any], device: str = "cpu") -> None:
        """Takes `Requests` as a mapping."""
        self.requests, self.device = requests, device

    def prepare(self) -> None:
        """Refuses."""
        raise NotAvailable("a round is scored after its last completion has ended, not meanwhile")

    def run(self) -> dict[str, float]:
        """Never reached."""
        raise NotImplementedError
