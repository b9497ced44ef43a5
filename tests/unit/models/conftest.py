"""Rows of tokens laid out with any padding, and models that read them."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from tutelage.experience import Experience

Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]


@pytest.fixture(scope="session")
def lay_out() -> Callable[..., Experience]:
    """`lay_out([(prompt, response), ...], width=30, side="left")`: padding of any amount and kind.

    `padding` draws the ids behind the mask; without it they are 0.
    """

    def build(
        sequences: Sequences,
        *,
        width: int = 0,
        side: str = "right",
        padding: torch.Generator | None = None,
    ) -> Experience:
        width = max(width, *(len(prompt) + len(response) for prompt, response in sequences))
        tokens = torch.zeros(len(sequences), width, dtype=torch.long)
        if padding is not None:
            tokens = torch.randint(60, tokens.shape, generator=padding)
        attention = torch.zeros(tokens.shape, dtype=torch.bool)
        written = torch.zeros(tokens.shape, dtype=torch.bool)
        for i, (prompt, response) in enumerate(sequences):
            length = len(prompt) + len(response)
            start = width - length if side == "left" else 0
            tokens[i, start : start + length] = torch.tensor([*prompt, *response])
            attention[i, start : start + length] = True
            written[i, start + len(prompt) : start + length] = True
        rows = len(sequences)
        return Experience(
            tokens=tokens,
            attention_mask=attention,
            response_mask=written,
            scores=torch.zeros(rows),
            truncated=torch.zeros(rows, dtype=torch.bool),
            sampler_logprobs=torch.zeros(tokens.shape),
        )

    return build


@pytest.fixture(scope="session")
def ragged_sequences() -> Sequences:
    """Three sequences of 5, 9 and 14 tokens, with ids from 3 to 59."""
    random = torch.Generator().manual_seed(1)
    drawn = [torch.randint(3, 60, (n,), generator=random).tolist() for n in (5, 9, 14)]
    return [
        (drawn[0][:2], drawn[0][2:]),
        (drawn[1][:4], drawn[1][4:]),
        (drawn[2][:6], drawn[2][6:]),
    ]


@pytest.fixture(scope="session")
def alone(lay_out) -> Callable[..., Tensor]:
    """`alone(read, sequences)`: what `read` says of the response tokens, one row at a time."""

    def each(read: Callable[[Experience], Tensor], sequences: Sequences) -> Tensor:
        parts = []
        for sequence in sequences:
            row = lay_out([sequence])
            parts.append(read(row)[row.response_mask])
        return torch.cat(parts)

    return each


@pytest.fixture(params=["llama", "gpt2", "qwen2", "gpt_neox"])
def architecture(request) -> str:
    """Each family in turn: rotary and absolute positions, parallel and serial blocks."""
    return request.param
