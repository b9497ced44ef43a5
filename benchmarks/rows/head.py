"""H6: the head over the vocabulary, where an update spends a fifth of its products.

Timed: from hidden states to the log-probability of a chosen token and the entropy of each row, and
back to the gradients of states and weights. 32,768 rows; hidden size and vocabulary of 135M (576
and 49,152) and of 1B (2,048 and 128,256).

    ours   `Policy.read` as every loss calls it: some tokens at a time, logits never kept
    peers  the definition in plain torch, all logits at once; Liger's fused operator

On a GPU the memory above states, weights and gradients before the call is compared as well.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.core.row import Check, Row, Side, clocks

__all__ = ["OurHead", "h6", "h6b"]

_CHECKED = 4096
"""Rows of the parity gate: more than one chunk of them."""


def h6(quick: bool) -> Row:
    """The head of 135M."""
    return _row("H6", "135M", ">= 0.95x Liger, memory <= 1 GB", quick)


def h6b(quick: bool) -> Row:
    """The head of 1B."""
    goal = ">= 70 % of the limit, >= 0.95x Liger, memory <= 1 GB"
    return _row("H6b", "1B", goal, quick)


def _row(name: str, shape: str, goal: str, quick: bool) -> Row:
    requests = {
        "shape": "micro" if quick else shape,
        "count": 96 if quick else 32768,
        "shortest": 1,
        "longest": 1,
        "answer": 1,
        "full": True,
    }
    options = {"requests": requests, "dtype": "bfloat16", "device": "cuda"}
    mine = {**options, "head_tokens": 32} if quick else options
    peer = "benchmarks.sides.heads:PeerHead"
    return Row(
        name,
        f"log-probability, entropy and gradients of {requests['count']} rows, the head of "
        f"{requests['shape']}, bfloat16",
        goal,
        [
            Side("tutelage", "benchmarks.rows.head:OurHead", mine, format="bfloat16", gated=True),
            Side("torch", peer, options, "peer", "bfloat16"),
            Side("Liger", peer, {**options, "liger": True}, "peer", "bfloat16"),
        ],
        quantities=(*clocks("cuda"), "device_bytes"),
        device="cuda",
        work={"kind": "head", "requests": requests},
    )


class OurHead:
    """The head of a policy of the row's shape."""

    def __init__(
        self,
        requests: Mapping[str, Any],
        dtype: str,
        head_tokens: int | None = None,
        device: str = "cpu",
    ) -> None:
        """Of `requests` the shape counts, and one row for each answer.

        `head_tokens` is the number of rows whose logits exist at a time, the project's own when
        absent.
        """
        self.shape, self.rows = requests["shape"], requests["count"]
        self.dtype, self.device, self.head_tokens = dtype, device, head_tokens

    def prepare(self) -> None:
        """Builds the policy, draws states and reads once."""
        from benchmarks.sides import heads, ours
        from tutelage.config import BatchConfig

        size = self.head_tokens or BatchConfig().head_tokens
        self.policy = ours.new_policy(self.shape, self.dtype, device=self.device, head_tokens=size)
        self.weight = self.policy.model.get_output_embeddings().weight
        states, self.tokens, self.gradient = heads.drawn(self.shape, self.rows, self.device)
        self.states = states.to(ours.DTYPES[self.dtype]).requires_grad_()
        self.run()

    def run(self) -> dict[str, float]:
        """Forward and backward."""
        self._read(self.rows)
        return {"tokens": float(self.rows)}

    def check(self) -> list[Check]:
        """Numbers and gradients of some rows against the definition in float32."""
        import torch

        from benchmarks.sides import heads, parity

        rows = min(self.rows, _CHECKED)
        found = self._read(rows)
        gradients = [self.states.grad[:rows].float(), self.weight.grad.float()]
        states = self.states[:rows].detach().float().requires_grad_()
        weight = self.weight.detach().float().requires_grad_()
        expected = []
        for part in torch.arange(rows, device=states.device).split(512):
            read = heads.plain_head(states[part], weight, self.tokens[part])
            read[0].backward(self.gradient[part])
            expected.append([each.detach() for each in read])
        checks = []
        for i, name in enumerate(("log-probability", "entropy")):
            gap = (found[i] - torch.cat([each[i] for each in expected])).abs()
            kind, value = (
                ("largest", gap.max()) if self.dtype == "float32" else ("mean", gap.mean())
            )
            line = f"{kind} |{name} - plain head|, {rows} rows, nats"
            checks.append(Check(line, float(value), parity.LOGPROB_LIMITS[self.dtype]))
        for of, mine, plain in zip(
            ("states", "weights"), gradients, (states.grad, weight.grad), strict=True
        ):
            assert plain is not None
            apart = float((mine - plain).norm() / plain.norm())
            line = f"|gradient - plain gradient| / |plain gradient|, {of}"
            checks.append(Check(line, apart, parity.GRADIENT_LIMITS[self.dtype]))
        return checks

    def _read(self, rows: int) -> list[Any]:
        """Log-probabilities and entropies of the first rows; leaves their gradients."""
        from tutelage.algorithms import logprobs_and_entropy

        self.states.grad = self.weight.grad = None
        found = self.policy.read(logprobs_and_entropy, self.states[:rows], self.tokens[:rows])
        found[0].backward(self.gradient[:rows])
        return [each.detach() for each in found]
