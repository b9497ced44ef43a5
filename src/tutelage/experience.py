"""What lives on the device: a padded batch of prompts with their completions.

Every per-token tensor is `[batch, time]` and position `t` speaks of `tokens[:, t]`:
its log-probability, its value, its reward. The shift by one that turns a causal
model's outputs into this form happens once, in `tutelage.models`.

    tokens          p p p p r r r E . .     prompt, response, stop token, padding
    attention_mask  1 1 1 1 1 1 1 1 0 0
    response_mask   0 0 0 0 1 1 1 1 0 0     what the policy wrote, and is trained on

In a conversation the mask has holes, where the policy read what was said to it:

    tokens          p p p r r E u u u r E .     u: the other side's turn, and the template around it
    response_mask   0 0 0 1 1 1 0 0 0 1 1 0
    earned          0 0 0 0 0 2 0 0 0 0 0 0     of a score of 5: 2 for the first turn
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tutelage.records import Completion, Score

__all__ = ["Experience", "TokenBatch"]


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
    earned: Float[Tensor, "batch time"] | None = None
    """The part of the scores that turns before a row's last one earned, on the last token of each;
    absent where all scores were earned at the end."""
    old_logprobs: Float[Tensor, "batch time"] | None = None
    ref_logprobs: Float[Tensor, "batch time"] | None = None
    values: Float[Tensor, "batch time"] | None = None
    advantages: Float[Tensor, "batch time"] | None = None
    returns: Float[Tensor, "batch time"] | None = None
    lower_states: Float[Tensor, "batch time hidden"] | None = None
    """What frozen blocks of the policy made of the tokens, where it has some."""

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
        earned = torch.zeros(len(rows), width)
        for i, ((prompt, response, logprobs), score) in enumerate(zip(rows, scores, strict=True)):
            start, end = len(prompt), len(prompt) + len(response)
            tokens[i, :end] = torch.tensor(prompt + response)
            attention_mask[i, :end] = True
            if score.ok:
                response_mask[i, start:end] = torch.tensor(completions[i].written)
                sampler_logprobs[i, start:end] = torch.tensor(logprobs)
                for turn, reward in zip(completions[i].turns[:-1], score.turns, strict=False):
                    earned[i, start + turn.end - 1] = reward
        return cls(
            tokens=tokens,
            attention_mask=attention_mask,
            response_mask=response_mask,
            scores=torch.tensor([score.value if score.ok else 0.0 for score in scores]),
            truncated=torch.tensor([completion.truncated for completion in completions]),
            sampler_logprobs=sampler_logprobs,
            earned=earned if earned.any() else None,
        )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.tokens)

    @property
    def response_lengths(self) -> Int[Tensor, " batch"]:
        """Response tokens of each row."""
        return self.response_mask.sum(1)

    @property
    def row_lengths(self) -> list[int]:
        """Tokens of each row, up to its last real one."""
        positions = torch.arange(1, self.tokens.shape[1] + 1, device=self.tokens.device)
        lengths: list[int] = (self.attention_mask * positions).max(1).values.tolist()
        return lengths

    @property
    def denominator(self) -> float:
        """Response tokens of the batch: what a token mean divides by."""
        return float(self.response_mask.sum())

    def to(self, device: torch.device | str) -> Self:
        """The same rows on another device."""
        present = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in present.items() if v is not None})

    def select(self, rows: Sequence[int]) -> Self:
        """The given rows, cut to the longest of them."""
        index = torch.tensor(list(rows), device=self.tokens.device)
        lengths = self.row_lengths
        width = max((lengths[row] for row in rows), default=0)
        picked = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                picked[item.name] = value[index, :width] if value.ndim >= 2 else value[index]
        return replace(self, **picked)


@dataclass(frozen=True)
class TokenBatch:
    """Sequences to imitate, each token with its weight in the loss."""

    tokens: Int[Tensor, "batch time"]
    attention_mask: Bool[Tensor, "batch time"]
    weights: Float[Tensor, "batch time"]
    """0 for what is read but not imitated: prompts and padding."""

    @classmethod
    def collate(cls, rows: Sequence[tuple[Sequence[int], Sequence[float]]], *, pad: int) -> Self:
        """Right-pads (token ids, weights); a row's first token cannot be predicted: weight 0."""
        width = max(len(ids) for ids, _ in rows)
        tokens = torch.full((len(rows), width), pad, dtype=torch.long)
        attention_mask = torch.zeros(len(rows), width, dtype=torch.bool)
        weights = torch.zeros(len(rows), width)
        for i, (ids, row_weights) in enumerate(rows):
            tokens[i, : len(ids)] = torch.tensor(ids)
            attention_mask[i, : len(ids)] = True
            weights[i, : len(ids)] = torch.tensor(row_weights, dtype=torch.float)
        weights[:, 0] = 0.0
        return cls(tokens, attention_mask, weights)

    def to(self, device: torch.device | str) -> Self:
        """The same rows on another device."""
        return type(self)(
            self.tokens.to(device), self.attention_mask.to(device), self.weights.to(device)
        )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.tokens)

    @property
    def response_mask(self) -> Bool[Tensor, "batch time"]:
        """Tokens that are imitated."""
        return self.weights > 0

    @property
    def row_lengths(self) -> list[int]:
        """Tokens of each row."""
        lengths: list[int] = self.attention_mask.sum(1).tolist()
        return lengths

    @property
    def denominator(self) -> float:
        """Sum of the weights."""
        return float(self.weights.sum())

    def select(self, rows: Sequence[int]) -> Self:
        """The given rows, cut to the longest of them."""
        index = torch.tensor(list(rows), device=self.tokens.device)
        width = int(self.attention_mask[index].sum(1).max())
        return type(self)(
            self.tokens[index, :width],
            self.attention_mask[index, :width],
            self.weights[index, :width],
        )
