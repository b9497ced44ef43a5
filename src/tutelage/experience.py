"""What lives on the device: a padded batch of prompts with their completions.

Every per-token tensor is `[batch, time]` and position `t` speaks of `tokens[:, t]`:
its log-probability, its value, its reward. The shift by one that turns a causal
model's outputs into this form happens once, in `tutelage.models`.

    tokens          p p p p r r r E . .     prompt, response, stop token, padding
    attention_mask  1 1 1 1 1 1 1 1 0 0
    response_mask   0 0 0 0 1 1 1 1 0 0     what the policy wrote, and is trained on
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tutelage.records import Completion, Score

__all__ = ["Experience"]


@dataclass(frozen=True)
class Experience:
    """Rows to learn from. Masks select what counts; a masked position holds 0."""

    tokens: Int[Tensor, "batch time"]
    attention_mask: Bool[Tensor, "batch time"]
    response_mask: Bool[Tensor, "batch time"]
    scores: Float[Tensor, " batch"]
    truncated: Bool[Tensor, " batch"]
    """The token limit, not the policy, ended the row."""
    sampler_logprobs: Float[Tensor, "batch time"]
    """What the sampler believed it drew from; compared with `old_logprobs`, never trained on."""
    old_logprobs: Float[Tensor, "batch time"] | None = None
    ref_logprobs: Float[Tensor, "batch time"] | None = None
    values: Float[Tensor, "batch time"] | None = None
    advantages: Float[Tensor, "batch time"] | None = None
    returns: Float[Tensor, "batch time"] | None = None

    @classmethod
    def collate(
        cls,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Completion],
        scores: Sequence[Score],
        *,
        pad: int,
    ) -> Self:
        """Lays prompts and completions out as right-padded rows.

        A row whose score is not usable keeps its place with an all-false
        `response_mask` and score 0: it counts nowhere.

        Args:
            prompts: token ids of each prompt, as the sampler saw them.
            pad: id that fills the padding; which id it is changes nothing.
        """
        rows = [
            (list(prompt), list(completion.tokens), completion.logprobs)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        width = max(len(prompt) + len(response) for prompt, response, _ in rows)
        tokens = torch.full((len(rows), width), pad, dtype=torch.long)
        attention_mask = torch.zeros(len(rows), width, dtype=torch.bool)
        response_mask = torch.zeros(len(rows), width, dtype=torch.bool)
        sampler_logprobs = torch.zeros(len(rows), width)
        for i, ((prompt, response, logprobs), score) in enumerate(zip(rows, scores, strict=True)):
            start, end = len(prompt), len(prompt) + len(response)
            tokens[i, :end] = torch.tensor(prompt + response)
            attention_mask[i, :end] = True
            response_mask[i, start:end] = score.ok
            if score.ok:
                sampler_logprobs[i, start:end] = torch.tensor(logprobs)
        return cls(
            tokens=tokens,
            attention_mask=attention_mask,
            response_mask=response_mask,
            scores=torch.tensor([score.value if score.ok else 0.0 for score in scores]),
            truncated=torch.tensor([completion.truncated for completion in completions]),
            sampler_logprobs=sampler_logprobs,
        )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.tokens)

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Response tokens of each row."""
        return self.response_mask.sum(1)

    @property
    def num_tokens(self) -> int:
        """Response tokens of the batch: the denominator of a token mean."""
        return int(self.response_mask.sum())

    def select(self, rows: Int[Tensor, " rows"] | Sequence[int]) -> Self:
        """The given rows, cut to the longest of them."""
        index = torch.as_tensor(rows)
        width = int(self.attention_mask[index].sum(1).max()) if len(index) else 0
        picked = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                picked[item.name] = value[index, :width] if value.ndim == 2 else value[index]
        return replace(self, **picked)
