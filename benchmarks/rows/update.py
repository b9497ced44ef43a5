"""C4, C4b, C4bt: one epoch of updates on a finished rollout.

Timed: forward, backward and optimiser step of policy and critic over 64 rows of C2's rollout, one
minibatch, as the first epoch of PPO makes them.

    ours   `Learner.fit` with the loss that `ppo` gives it
    peer   the epochs of `PPOTrainer.train`, timed inside a call that runs as released, with the
           answers given instead of sampled; defaults (autocast, micro-batches of 8) and float32
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.core.row import Check, Row, Side

__all__ = ["OurUpdate", "c4", "c4b", "c4bt", "update_requests"]


def update_requests(quick: bool) -> dict[str, Any]:
    """64 rows of the rollout of C2."""
    return {
        "shape": "micro" if quick else "135M",
        "count": 8 if quick else 64,
        "shortest": 4 if quick else 16,
        "longest": 12 if quick else 64,
        "answer": 16 if quick else 128,
    }


def c4(quick: bool) -> Row:
    """135M, 64 rows, one epoch, float32 on both sides."""
    return _row("C4", quick, "float32", "float32", ">= 3x, >= 75 % of the limit")


def c4b(quick: bool) -> Row:
    """The same in bfloat16, the peer with its defaults."""
    return _row("C4b", quick, "bfloat16", "bfloat16", ">= 3x, >= 65 % of the limit")


def c4bt(quick: bool) -> Row:
    """Ours in bfloat16, the peer in float32, in which it is faster."""
    return _row("C4bt", quick, "bfloat16", "float32", ">= 4.5x, >= 65 % of the limit")


def _row(name: str, quick: bool, ours: str, theirs: str, goal: str) -> Row:
    """One peer, since no more than two sides of 135M fit into 24 GB."""
    requests = update_requests(quick)
    trainer = {"requests": requests, "epochs": 1, "only": "update", "bf16": theirs == "bfloat16"}
    here, peer = "benchmarks.rows.update:OurUpdate", "benchmarks.sides.trl_ppo:TRLTrainer"
    default = " (default)" if theirs == "bfloat16" else ""
    return Row(
        name,
        f"update, {requests['shape']}, {requests['count']} rows, one epoch of policy and critic",
        goal,
        [
            Side(
                f"tutelage {ours}",
                here,
                {"requests": requests, "dtype": ours},
                format=ours,
                gated=True,
            ),
            Side(f"TRL {theirs}{default}", peer, trainer, "peer", theirs),
        ],
        work={"kind": "update", "requests": requests, "epochs": 1},
    )


class OurUpdate:
    """The update of one PPO step on given answers."""

    def __init__(
        self,
        requests: Mapping[str, Any],
        dtype: str,
        epochs: int = 1,
        microbatch_tokens: int = 1024,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        """`microbatch_tokens` is the budget of one forward and backward pass.

        Further options are those of `benchmarks.sides.learning.Actors`.
        """
        from benchmarks.sides.requests import Requests

        self.requests = Requests(**requests)
        self.dtype, self.epochs, self.device = dtype, epochs, device
        self.microbatch_tokens, self.options = microbatch_tokens, options

    def prepare(self) -> None:
        """Runs `ppo` up to its update, and that once."""
        from benchmarks.sides import learning

        self.actors = learning.Actors(
            self.requests,
            self.epochs,
            self.dtype,
            self.microbatch_tokens,
            self.device,
            **self.options,
        )
        steps = self.actors.steps(
            self.requests, self.actors.scripted(self.requests), learning.no_reward
        )
        self.update = self.actors.learner.capture(steps)
        self.run()

    def check(self) -> list[Check]:
        """Loss, gradients and step against unpacked rows and a plain optimiser."""
        from benchmarks.sides import learning

        return learning.update_parity(self.actors, self.update, self.dtype)

    def run(self) -> dict[str, float]:
        """The epochs."""
        self.update.fit()
        return {"tokens": float(sum(self.requests.lengths))}
