"""What a loss returns: the number to differentiate, and what should be logged about it.

Metrics are made to be accumulated. Each is a sum over tokens divided by the denominator
of the whole optimiser step, so micro-batches and ranks **add up** to the value of one
large batch; a name that ends in `_max` or `_min` is combined by that function instead.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["LossOutput", "merge_metrics"]


class LossOutput(NamedTuple):
    """A scalar loss with gradient, and detached scalar metrics by name."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Tensor]


def merge_metrics(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Combines the metrics of micro-batches into those of the optimiser step.

        merged[name] = Σᵢ partᵢ[name]      (max or min for `*_max`, `*_min`)

    Source: by definition, a mean is linear once its denominator is known beforehand. An empty
    micro-batch contributes the neutral element: 0 to a sum, ∓∞ to a maximum or minimum.
    """
    merged: dict[str, Tensor] = {}
    for part in parts:
        for name, value in part.items():
            if name not in merged:
                merged[name] = value
            elif name.endswith("_max"):
                merged[name] = torch.maximum(merged[name], value)
            elif name.endswith("_min"):
                merged[name] = torch.minimum(merged[name], value)
            else:
                merged[name] = merged[name] + value
    return merged
