"""What is large for each token exists for a chunk of tokens at a time.

    states ─┬─ chunk ──head──> logits ──read──> a number per token ─┬─> joined
            └─ chunk ──head──> logits ──read──> a number per token ─┘

Logits of 8,192 tokens over 49,152 words are 1.6 GB, and a softmax with its gradient needs
several times that. Of a chunk, only its inputs are kept for the backward pass, which computes
the rest again (Chen et al. 2016, arXiv:1604.06174): one more pass through the head.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["Read", "in_chunks"]

Read = Callable[..., tuple[Tensor, ...]]
"""Takes tensors with a row for each token, and gives numbers for each token."""


def in_chunks(read: Read, size: int, per_token: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """`read(*per_token)`, of at most `size` tokens at a time.

    Tokens that fit one chunk are read as they are: nothing is computed twice. The cuts depend on
    the number of tokens alone, with and without gradients.

    Args:
        read: of each token by itself.
        size: most tokens in a chunk; chunks are of like size.
        per_token: tensors of the same length.
    """
    count = len(per_token[0])
    if count <= size:
        return read(*per_token)
    pieces = math.ceil(count / size)
    parts = [
        _remembering_inputs(read, chunk)
        for chunk in zip(*(each.chunk(pieces) for each in per_token), strict=True)
    ]
    return tuple(torch.cat(each) for each in zip(*parts, strict=True))


def _remembering_inputs(read: Read, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    if not torch.is_grad_enabled():
        return read(*inputs)
    # Nothing random happens behind a head, so no random state need be kept.
    found: tuple[Tensor, ...] = checkpoint(
        read, *inputs, use_reentrant=False, preserve_rng_state=False
    )
    return found
