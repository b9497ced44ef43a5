"""H5: how long the sampler waits for new weights.

Timed: from the end of an optimiser step to the first token that is drawn with what it has made of
the weights. In it are the copies that the engine makes, one prompt read, one token drawn. There is
no peer in one process; published figures of engines in processes of their own are 0.02 to 0.12 s,
at 7B.

    ours   `LocalEngine.load_weights` and `LocalEngine.generate` of one token

The gate holds the log-probabilities of the first tokens of 16 prompts against a plain forward pass
with the new weights, and asks that the old ones would have given others.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.core.row import Check, Row, Side

__all__ = ["OurRefresh", "h5", "h5b"]

_MOVED = 1e-3
"""Nats by which the step of the gate moves the first tokens at least, on average."""


def h5(quick: bool) -> Row:
    """135M."""
    return _row("H5", "135M", "<= 1 ms", quick)


def h5b(quick: bool) -> Row:
    """1B."""
    return _row("H5b", "1B", "<= 5 ms", quick)


def _row(name: str, shape: str, goal: str, quick: bool) -> Row:
    shape = "micro" if quick else shape
    requests = {"shape": shape, "count": 16, "shortest": 16, "longest": 16, "answer": 4}
    options = {"requests": requests, "dtype": "bfloat16", "device": "cuda"}
    return Row(
        name,
        f"end of an optimiser step to the first token with the new weights, {shape} bfloat16",
        goal,
        [
            Side(
                "tutelage",
                "benchmarks.rows.refresh:OurRefresh",
                options,
                format="bfloat16",
                gated=True,
            )
        ],
        quantities=("wall_s",),
        device="cuda",
        work={"kind": "refresh", "requests": requests},
    )


class OurRefresh:
    """An optimiser step per run, and the engine's way to its weights."""

    def __init__(self, requests: Mapping[str, Any], dtype: str, device: str = "cpu") -> None:
        """Takes `Requests` as a mapping; the timed call reads the first of its prompts."""
        from benchmarks.sides.requests import Requests

        self.requests = Requests(**requests)
        self.dtype, self.device = dtype, device

    def prepare(self) -> None:
        """Builds policy, optimiser and engine, and goes the way once."""
        from benchmarks.sides import ours, shapes
        from tutelage.config import OptimizerConfig
        from tutelage.trainers.optimizer import Optimizer

        shape = self.requests.shape
        vocabulary = shapes.SHAPES[shape]["vocab_size"]
        self.policy = ours.new_policy(shape, self.dtype, device=self.device)
        settings = OptimizerConfig(learning_rate=1e-3, schedule="constant")
        self.optimizer = Optimizer(self.policy.model, settings, 1_000_000)
        self.engine = ours.engine(self.policy, vocabulary, None, self.requests.count)
        self.prompts = ours.encoded(self.requests.prompts, vocabulary)
        self.sampling = ours.sampling(1, ends=False)
        self.run()

    def check(self) -> list[Check]:
        """First tokens come from the new weights and not from the old ones."""
        from benchmarks.sides import parity

        old = self.policy.frozen_copy()
        self._step()
        drawn = self._first_tokens(self.prompts)
        (line,) = parity.logprob_gate(
            self.policy, self.prompts, drawn, self.dtype, lengths_forced=False
        )
        (before,) = parity.logprob_gate(old, self.prompts, drawn, self.dtype, lengths_forced=False)
        moved = f"1 if the old weights come within {_MOVED} nats of them, 0 if not"
        return [line, Check(moved, float(before.value < _MOVED), 0.0)]

    def run(self) -> dict[str, float]:
        """A step, and then what is timed."""
        from benchmarks.sides.clock import now

        self._step()
        wall, cpu = now(self.device)
        tokens = sum(len(completion.tokens) for completion in self._first_tokens(self.prompts[:1]))
        wall_end, cpu_end = now(self.device)
        return {"tokens": float(tokens), "wall_s": wall_end - wall, "cpu_s": cpu_end - cpu}

    def _step(self) -> None:
        """As after a backward pass: every weight has a gradient and moves."""
        import torch

        for weight in self.optimizer.weights:
            weight.grad = torch.randn_like(weight)
        self.optimizer.clip()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _first_tokens(self, prompts: Any) -> Any:
        self.engine.load_weights(self.policy)
        return self.engine.generate(prompts, self.sampling)
