"""C9: memory above the weights that a PPO update needs, on the work of C5b.

Each repeat is a process of its own. Resident memory is read once the models are built; then one
update runs, and the highest resident memory since is read. The difference is gradients,
optimiser state, activations, logits and what the allocator holds.

    ours   one step of `ppo`, the logits of 256 tokens at a time; with a critic of its own, which
           is the peer's algorithm, and on one trunk, which is another
    peer   one batch of `PPOTrainer.train`, defaults and float32
"""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.core.machine import memory_of_process
from benchmarks.core.row import Row, Side
from benchmarks.rows.ppo import OurPPO, ppo_requests

__all__ = ["OurMemory", "TRLMemory", "c9"]


def c9(quick: bool) -> Row:
    """135M, 32 episodes, answers to 64."""
    requests = ppo_requests("C5b", quick)
    here, options = "benchmarks.rows.memory", {"requests": requests}
    ours = {**options, "dtype": "float32", "head_tokens": 256, "microbatch_tokens": 256}
    return Row(
        "C9",
        f"memory above the weights in a PPO update, {requests['shape']}, as C5b",
        "<= 0.4x, that is >= 2.5 times less",
        [
            Side("tutelage", f"{here}:OurMemory", ours, gated=True),
            Side(
                "tutelage one trunk", f"{here}:OurMemory", {**ours, "trunk": "shared"}, gated=True
            ),
            Side("TRL default", f"{here}:TRLMemory", options, "peer", "bfloat16"),
            Side("TRL float32", f"{here}:TRLMemory", {**options, "bf16": False}, "peer"),
        ],
        quantities=("bytes",),
        fresh=True,
    )


class OurMemory(OurPPO):
    """The first step of `ppo` in a fresh process."""

    def prepare(self) -> None:
        """Builds, without a first step: its memory is what is asked."""
        self.build()

    def run(self) -> dict[str, float]:
        """Bytes above the models."""
        before = _after_building()
        figures = super().run()
        return {**figures, "bytes": _highest() - before}


class TRLMemory:
    """The first batch of TRL's `train` in a fresh process."""

    def __init__(self, requests: Mapping[str, Any], bf16: bool = True) -> None:
        """Takes `Requests` as a mapping."""
        from benchmarks.sides.trl_ppo import TRLTrainer

        self.trainer = TRLTrainer(requests, bf16=bf16)

    def prepare(self) -> None:
        """Builds, without a first batch."""
        self.trainer.build()

    def run(self) -> dict[str, float]:
        """Bytes above the models."""
        before = _after_building()
        figures = self.trainer.run()
        return {**figures, "bytes": _highest() - before}


def _after_building() -> float:
    """Resident bytes now; the kernel's record of the highest starts anew here."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return memory_of_process("VmRSS")


def _highest() -> float:
    return memory_of_process("VmHWM")
