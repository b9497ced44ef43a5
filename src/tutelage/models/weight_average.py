"""One model out of several that were fine-tuned from the same weights.

    theta = (theta_1 + ... + theta_k) / k

Models that share their pre-trained start lie in one basin, where the mean of their weights scores
about as well as the mean of their scores, for one forward pass, and is less moved by wrong labels
(WARM: Ramé et al. 2024, arXiv:2401.12187). It knows nothing of how far the models disagree.
"""

from collections.abc import Sequence

import torch
from torch import nn

from tutelage.errors import ModelError

__all__ = ["average_weights"]


@torch.no_grad()
def average_weights(target: nn.Module, models: Sequence[nn.Module]) -> None:
    """Sets the weights of `target` to the mean of those of `models`; buffers stay as they are.

    Raises:
        ModelError: there are no models, or weights differ in name or shape.
    """
    if not models:
        raise ModelError("there are no models to average")
    columns = [dict(model.named_parameters()) for model in models]
    for name, weight in target.named_parameters():
        parts = [column.get(name) for column in columns]
        shapes = [None if part is None else tuple(part.shape) for part in parts]
        if any(shape != tuple(weight.shape) for shape in shapes):
            raise ModelError(
                f"{name} has shape {tuple(weight.shape)} in one model and {shapes} in those to "
                "average: only models of one architecture can be"
            )
        # In float64: the order of the models must not matter, not even in the last digit.
        stacked = torch.stack([part.double() for part in parts if part is not None])
        weight.copy_(stacked.mean(0))
