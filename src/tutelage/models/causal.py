"""The one place where a causal model's outputs are shifted by one.

A causal model's output at position t speaks of token t + 1. Everything above this module
uses the other convention, position t speaks of token t (see `tutelage.experience`), so the
shift happens here, for log-probabilities and for values alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["Backbone", "autocast", "base_model", "position_ids", "scatter"]


def position_ids(attention_mask: Bool[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """Positions counted from the first real token, on whichever side the padding lies."""
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)


def base_model(model: PreTrainedModel) -> PreTrainedModel:
    """The transformer beneath a model's head; the model itself where it has none."""
    return cast(PreTrainedModel, model.base_model)


@contextmanager
def autocast(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Matrix products in `dtype`; nothing happens for float32."""
    if dtype is torch.float32:
        yield
    else:
        with torch.autocast(device.type, dtype=dtype):
            yield


def scatter(
    picked: Float[Tensor, " selected"], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Puts one number per selected position back into place; 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=picked.dtype, device=picked.device).masked_scatter(
        mask, picked
    )


class Backbone(nn.Module):
    """Hidden states of a transformer, ahead of any head."""

    def __init__(self, model: PreTrainedModel, compute: torch.dtype = torch.float32) -> None:
        """Wraps a model that has a `base_model`; `compute` is the autocast format."""
        super().__init__()
        self.model = model
        self.compute = compute

    def forward(
        self, tokens: Int[Tensor, "batch time"], attention_mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time hidden"]:
        """Hidden states after the last norm, at every position."""
        inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": False}
        if not bool(attention_mask.all()):
            inputs["attention_mask"] = attention_mask
            inputs["position_ids"] = position_ids(attention_mask)
        with autocast(tokens.device, self.compute):
            hidden: Tensor = base_model(self.model)(**inputs).last_hidden_state
        return hidden

    def before(
        self,
        tokens: Int[Tensor, "batch time"],
        attention_mask: Bool[Tensor, "batch time"],
        selected: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "selected hidden"]:
        """The state in which each selected token was chosen: the hidden state one earlier."""
        assert not selected[:, 0].any(), "the first token of a row has no state before it"
        hidden = self(tokens, attention_mask)
        return hidden[:, :-1][selected[:, 1:]]
