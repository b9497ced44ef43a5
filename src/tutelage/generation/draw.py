"""Draws tokens, and says how probable they were, in one pass over the logits.

One uniform number per row and the inverse of the cumulative distribution: `torch.multinomial`
draws one number per entry of the vocabulary instead.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["draw"]


def draw(
    logits: Float[Tensor, "batch vocabulary"], temperature: float, generator: torch.Generator
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Draws one token per row and gives its log-probability at that temperature.

    Temperature 0 takes the most likely token; its log-probability is then at temperature 1.
    """
    scaled = logits.float()
    if temperature not in (0.0, 1.0):
        scaled = scaled / temperature
    shifted = scaled - scaled.amax(-1, keepdim=True)
    weights = shifted.exp()
    if temperature == 0.0:
        tokens = scaled.argmax(-1)
    else:
        cumulative = weights.cumsum(-1)
        uniform = torch.rand(
            len(logits), 1, generator=generator, device=logits.device, dtype=torch.float32
        )
        # The last entry is the sum as rounded: scaling by it keeps every draw inside.
        position = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        tokens = position.squeeze(1).clamp(max=logits.shape[1] - 1)
    # A sum adds up pairwise; the end of a running sum would be off in the fourth digit.
    normaliser = weights.sum(-1).log()
    return tokens, shifted.gather(1, tokens[:, None]).squeeze(1) - normaliser
