"""C8: the share of an update that is neither matrix product nor attention nor optimiser.

Measured by torch's profiler over the update of C4 (135M) and over that of C5 (tiny): one minus the
time inside those operators over the time of the whole. What remains is elementwise work, copies,
Python, and the profiler's own cost, the same per operator on both sides.

    ours   `Learner.fit` with the loss that `ppo` gives it
    peer   the epochs of `PPOTrainer.train` in float32
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.core.row import Row, Side
from benchmarks.rows.ppo import ppo_requests
from benchmarks.rows.update import OurUpdate

__all__ = ["OurOverhead", "TRLOverhead", "c8", "c8t", "inside"]

INSIDE = (
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::mkldnn_linear",
    "aten::_scaled_dot_product",
    "aten::_flash_attention",
    "aten::_efficient_attention",
    "aten::_softmax",
    "aten::_fused_adamw_",
    "mkldnn::_linear",
)
"""Beginnings of the operators' names."""


def c8(quick: bool) -> Row:
    """135M."""
    return _row("C8", ppo_requests("C5b", quick), "<= 5 %")


def c8t(quick: bool) -> Row:
    """tiny."""
    return _row("C8t", ppo_requests("C5", quick), "<= 15 %")


def _row(name: str, requests: dict[str, Any], goal: str) -> Row:
    here, options = "benchmarks.rows.overhead", {"requests": requests, "epochs": 1}
    return Row(
        name,
        f"share of an update outside products, attention and optimiser, {requests['shape']}",
        goal,
        [
            Side("tutelage", f"{here}:OurOverhead", {**options, "dtype": "float32"}, gated=True),
            Side("TRL", f"{here}:TRLOverhead", options, "peer"),
        ],
        quantities=("outside",),
    )


class OurOverhead(OurUpdate):
    """The update under the profiler, on one core: the profiler sees the calling thread alone."""

    def prepare(self) -> None:
        """Runs `ppo` up to its update, and that once."""
        from tutelage.distributed import Cores

        super().prepare()
        self.actors.learner.cores = Cores()

    def run(self) -> dict[str, float]:
        """Share outside, and the real response tokens."""
        from torch.profiler import profile

        with profile() as profiler:
            figures = super().run()
        return {**figures, **self.read(profiler)}

    def read(self, profiler: Any) -> dict[str, float]:
        """What the profiler has seen of an update."""
        return _outside(profiler)


class TRLOverhead:
    """The epochs of one call of TRL's `train` under the profiler."""

    def __init__(self, requests: Mapping[str, Any], epochs: int, **options: Any) -> None:
        """Takes `Requests` as a mapping; further options are those of `TRLTrainer`."""
        from benchmarks.sides.trl_ppo import TRLTrainer

        self.trainer = TRLTrainer(requests, epochs, only="update", **{"bf16": False, **options})

    def prepare(self) -> None:
        """Builds the trainer and runs one update."""
        from torch.profiler import profile

        self.trainer.prepare()
        self.profiler: Any = None

        def begin() -> None:
            self.profiler = profile()
            self.profiler.start()

        self.trainer.at_first_epoch = begin
        self.trainer.after_last_epoch = lambda: self.profiler.stop()

    def run(self) -> dict[str, float]:
        """Share outside, and the real response tokens."""
        figures = self.trainer.run()
        seen, self.profiler = self.read(self.profiler), None  # Its events take gigabytes.
        return {**figures, **seen}

    def read(self, profiler: Any) -> dict[str, float]:
        """What the profiler has seen of an update."""
        return _outside(profiler)


def _outside(profiler: Any) -> dict[str, float]:
    return {"outside": 1.0 - inside(profiler.key_averages()) / _span(profiler)}


def inside(averages: Any) -> float:
    """Microseconds in the operators that do the work, what they call included once."""
    return float(sum(row.self_cpu_time_total for row in averages if row.key.startswith(INSIDE)))


def _span(profiler: Any) -> float:
    """Microseconds from the first event to the last."""
    ranges = [event.time_range for event in profiler.events()]
    return float(max(r.end for r in ranges) - min(r.start for r in ranges))
