"""A policy update as one writes it around a transformers model: padded rows, nothing else.

Micro-batches of like lengths, padded on the right, autocast over float32 weights, the clipped loss
of PPO on the answers' tokens, fused AdamW. With Liger its kernels replace norms, rotation and
feed-forward blocks, and its fused head gives log-probability and entropy without the logits.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.core.row import NotAvailable
from benchmarks.sides import shapes
from benchmarks.sides.heads import liger_head, plain_head
from benchmarks.sides.requests import Requests

__all__ = ["PaddedUpdate"]

_CLIP = 0.2


class PaddedUpdate:
    """One minibatch of all rows per run."""

    def __init__(
        self,
        requests: Mapping[str, Any],
        dtype: str,
        microbatch: int = 32,
        liger: bool = False,
        device: str = "cpu",
    ) -> None:
        """Takes `Requests` as a mapping; `microbatch` is a number of rows."""
        self.requests = Requests(**requests)
        self.dtype, self.microbatch, self.device = dtype, microbatch, device
        self.liger = liger

    def prepare(self) -> None:
        """Builds the model and takes a step."""
        self.read_head = liger_head(self.device) if self.liger else plain_head
        self.model = shapes.causal_lm(self.requests.shape, 0, self.device).train()
        if self.liger:
            _take_ligers_kernels(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-6, fused=True)
        self.parts = list(self._micro_batches())
        self.run()

    def run(self) -> dict[str, float]:
        """The gradient of all rows and a step."""
        answered = sum(self.requests.lengths)
        for tokens, attention_mask, chosen, advantages in self.parts:
            logprobs = self._logprobs(tokens, attention_mask, chosen)
            # Of the first of all epochs: the old policy is the present one.
            ratio = (logprobs - logprobs.detach()).exp()
            clipped = ratio.clamp(1 - _CLIP, 1 + _CLIP)
            gain = torch.minimum(ratio * advantages, clipped * advantages)
            (-gain.sum() / answered).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"tokens": float(answered)}

    def _logprobs(self, tokens: Tensor, attention_mask: Tensor, chosen: Tensor) -> Tensor:
        compute = getattr(torch, self.dtype)
        with torch.autocast(self.device, compute, enabled=compute is not torch.float32):
            hidden = self.model.base_model(
                input_ids=tokens, attention_mask=attention_mask, use_cache=False
            ).last_hidden_state
        states = hidden[:, :-1][chosen[:, 1:]].to(compute)
        head = self.model.get_output_embeddings().weight.to(compute)
        return self.read_head(states, head, tokens[chosen])[0]

    def _micro_batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Token ids, which are real, which are answers, and the answers' advantages."""
        pairs = zip(self.requests.prompts, self.requests.answers, strict=True)
        rows = sorted(pairs, key=lambda pair: -len(pair[0]) - len(pair[1]))
        for first in range(0, len(rows), self.microbatch):
            part = rows[first : first + self.microbatch]
            width = max(len(prompt) + len(answer) for prompt, answer in part)
            tokens = torch.full((len(part), width), shapes.PAD)
            chosen = torch.zeros(len(part), width, dtype=torch.bool)
            for i, (prompt, answer) in enumerate(part):
                end = len(prompt) + len(answer)
                tokens[i, :end] = torch.tensor([*prompt, *answer])
                chosen[i, len(prompt) : end] = True
            advantages = torch.randn(int(chosen.sum()))
            mask = (tokens != shapes.PAD).long()
            yield tuple(each.to(self.device) for each in (tokens, mask, chosen, advantages))  # type: ignore[misc]


def _take_ligers_kernels(model: Any) -> None:
    try:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance
    except ImportError as error:
        raise NotAvailable(f"Liger's kernels cannot be imported: {error}") from error
    _apply_liger_kernel_to_instance(model=model)
