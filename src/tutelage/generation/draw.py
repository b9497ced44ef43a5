"""Draws tokens, and says how probable they were, in few passes over the logits.

One uniform number per row and the inverse of the cumulative distribution: `torch.multinomial`
draws one number per entry of the vocabulary instead. A large vocabulary is searched in two steps,
so that nothing is added up entry by entry but what one block holds:

    weights  | block 0 | block 1 | ... | block n |      the block in which u * sum lies,
                  sum       sum           sum           then the entry in that block

On a processor with a compiler all of it is one pass over the logits (`tutelage.native`).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tutelage.native import decoding
from tutelage.native.calls import available

__all__ = ["draw"]

_BLOCK = 2048
"""Entries that are searched at once; a smaller vocabulary is a single block."""
_BELOW_ONE = 1.0 - 2.0**-24
"""The largest float32 below 1."""


def draw(
    logits: Float[Tensor, "batch vocabulary"],
    temperature: float,
    uniform: Float[Tensor, " batch"],
    room: Float[Tensor, "batch vocabulary"] | None = None,
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Draws one token per row and gives its log-probability at that temperature.

    Temperature 0 takes the most likely token; its log-probability is then at temperature 1.

    Args:
        logits: of the next token.
        temperature: divides them.
        uniform: float32, from 0 to below 1, one for each row; temperature 0 asks for none of them.
        room: float32, may be overwritten; who draws again and again gives the same and spares a new
            tensor of the logits' size each time.
    """
    if available(logits.device, logits.dtype):
        return decoding.draw(logits.contiguous(), temperature, uniform)
    return _draw(logits, temperature, uniform[:, None], room)


def _draw(
    logits: Float[Tensor, "batch vocabulary"],
    temperature: float,
    uniform: Float[Tensor, "batch 1"],
    room: Float[Tensor, "batch vocabulary"] | None,
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"]]:
    """In torch's own operations."""
    scaled = torch.empty_like(logits, dtype=torch.float32) if room is None else room
    scaled = _divide(scaled.copy_(logits), temperature)
    highest = scaled.amax(-1, keepdim=True)
    weights = scaled.sub_(highest).exp_()
    sums = _sums_of_blocks(weights)
    if temperature == 0.0:
        tokens = logits.argmax(-1, keepdim=True)
    else:
        tokens = _entry(weights, sums, uniform)
    # Sums add up pairwise; the end of a running sum would be off in the fourth digit.
    chosen = _divide(logits.gather(1, tokens).float(), temperature)
    logprobs = chosen - highest - sums.sum(-1, keepdim=True).log()
    return tokens.squeeze(1), logprobs.squeeze(1)


def _divide(logits: Tensor, temperature: float) -> Tensor:
    """In place, by a temperature that changes anything."""
    return logits if temperature in (0.0, 1.0) else logits.div_(temperature)


def _sums_of_blocks(weights: Float[Tensor, "batch vocabulary"]) -> Float[Tensor, "batch blocks"]:
    whole = weights.shape[1] // _BLOCK * _BLOCK
    sums = weights[:, :whole].unflatten(1, (-1, _BLOCK)).sum(-1) if whole else weights[:, :0]
    if whole == weights.shape[1]:
        return sums
    return torch.cat((sums, weights[:, whole:].sum(-1, keepdim=True)), 1)


def _entry(
    weights: Float[Tensor, "batch vocabulary"],
    sums: Float[Tensor, "batch blocks"],
    uniform: Float[Tensor, "batch 1"],
) -> Int[Tensor, "batch 1"]:
    """The first entry up to which the weights add up to more than `uniform` of all."""
    if sums.shape[1] == 1:
        return _search(weights.cumsum(-1), uniform)
    ends = sums.cumsum(-1)
    block = _search(ends, uniform)
    weight = sums.gather(1, block)
    before = ends.gather(1, block) - weight
    rest = ((uniform * ends[:, -1:] - before) / weight).clamp(0.0, _BELOW_ONE)
    columns = block * _BLOCK + torch.arange(_BLOCK, device=weights.device)
    last = weights.shape[1] - 1
    held = weights.gather(1, columns.clamp(max=last)) * (columns <= last)
    return columns.gather(1, _search(held.cumsum(-1), rest))


def _search(
    ends: Float[Tensor, "batch entries"], uniform: Float[Tensor, "batch 1"]
) -> Int[Tensor, "batch 1"]:
    """The first entry whose end, the sum of weights up to it, lies beyond `uniform` of all."""
    # The last end is the sum as rounded: scaling by it keeps every draw inside.
    target = uniform * ends[:, -1:]
    return torch.searchsorted(ends, target, right=True).clamp_(max=ends.shape[1] - 1)
