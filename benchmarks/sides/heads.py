"""A head over the vocabulary, read in the plain way and by Liger.

    states [rows, H] ──W [V, H]──> logits [rows, V] ──> log-probability and entropy of each row

The log-probability has a gradient, the entropy is only looked at.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.core.row import NotAvailable
from benchmarks.sides.shapes import SHAPES

__all__ = ["PeerHead", "ReadHead", "drawn", "liger_head", "plain_head"]

ReadHead = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes states, the head's weights and chosen tokens; gives log-probabilities and entropies."""


def plain_head(states: Tensor, weight: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The definition in torch's words, in float32 behind the product."""
    logprobs = functional.linear(states, weight).float().log_softmax(-1)
    with torch.no_grad():
        entropies = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, tokens[:, None]).squeeze(-1), entropies


def liger_head(device: str) -> ReadHead:
    """Liger's operator, which keeps no logits."""
    try:
        from liger_kernel.ops import LigerFusedLinearScaledCrossEntropyFunction as Fused
    except ImportError as error:
        raise NotAvailable(f"Liger's fused head cannot be imported: {error}") from error
    if device != "cuda":
        raise NotAvailable(f"Liger's kernels need a GPU, this row runs on {device}")

    def read(states: Tensor, weight: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        temperature, ignored_token, tiles, with_entropy = 1.0, -100, 1, True
        loss, entropies = Fused.apply(
            states, weight, tokens, temperature, ignored_token, tiles, with_entropy
        )
        return -loss, entropies.detach()

    return read


def drawn(shape: str, rows: int, device: str, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random states of unit scale, chosen tokens, and the gradient that arrives at each."""
    generator = torch.Generator().manual_seed(seed)
    hidden, vocabulary = SHAPES[shape]["hidden_size"], SHAPES[shape]["vocab_size"]
    states = torch.randn(rows, hidden, generator=generator)
    tokens = torch.randint(vocabulary, (rows,), generator=generator)
    gradient = torch.randn(rows, generator=generator)
    return states.to(device), tokens.to(device), gradient.to(device)


class PeerHead:
    """A head of random weights, read and differentiated."""

    def __init__(
        self,
        requests: Mapping[str, Any],
        dtype: str,
        liger: bool = False,
        device: str = "cpu",
    ) -> None:
        """Of `requests` the shape counts, and one row for each answer."""
        self.shape, self.rows = requests["shape"], requests["count"]
        self.compute, self.liger, self.device = getattr(torch, dtype), liger, device

    def prepare(self) -> None:
        """Draws states and weights, and reads once."""
        self.read = liger_head(self.device) if self.liger else plain_head
        states, self.tokens, self.gradient = drawn(self.shape, self.rows, self.device)
        sizes = SHAPES[self.shape]
        weight = 0.02 * torch.randn(sizes["vocab_size"], sizes["hidden_size"])
        self.states = states.to(self.compute).requires_grad_()
        self.weight = weight.to(self.device, self.compute).requires_grad_()
        try:
            self.run()
        except torch.OutOfMemoryError as error:
            raise NotAvailable(f"the logits of {self.rows} rows do not fit: {error}") from error

    def run(self) -> dict[str, float]:
        """Forward and backward."""
        self.states.grad = self.weight.grad = None
        logprobs, _ = self.read(self.states, self.weight, self.tokens)
        logprobs.backward(self.gradient)
        return {"tokens": float(self.rows)}
