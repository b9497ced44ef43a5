"""Decoding through a model's own forward pass, whatever its architecture.

The interface is that of `tutelage.models.decoder`, which is faster and knows one family of models.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from tutelage.generation.cache import growing_cache
from tutelage.models.causal import autocast, position_ids
from tutelage.models.column_cache import WORTH_COPYING

__all__ = ["PlainCache", "PlainDecoder"]


@dataclass
class PlainCache:
    """What transformers keeps of the tokens so far, and which columns are padding."""

    states: DynamicCache
    mask: Bool[Tensor, "rows time"]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drops all rows but those given."""
        self.states.batch_select_indices(rows)
        self.mask = self.mask[rows]

    def repeat(self, times: int) -> None:
        """Every row `times` times, side by side."""
        self.states.batch_repeat_interleave(times)
        self.mask = self.mask.repeat_interleave(times, 0)


class PlainDecoder:
    """Calls the model once for the prompts and once for each further token."""

    idle_share = WORTH_COPYING
    """Share of the rows that may have ended and stay: to let them leave would cost more."""

    def __init__(self, model: PreTrainedModel, compute: torch.dtype) -> None:
        """Nothing is copied; `compute` is the autocast format."""
        self._model, self._compute = model, compute

    def refresh(self) -> None:
        """Nothing to do: the weights are the model's own."""

    def prefill(
        self, tokens: Int[Tensor, "rows time"], start: Int[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "rows vocabulary"], PlainCache]:
        """Reads prompts that are padded on the left up to column `start`."""
        columns = torch.arange(tokens.shape[1], device=tokens.device)
        cache = PlainCache(growing_cache(self._model.config), columns[None] >= start[:, None])
        return self._forward(tokens, cache), cache

    def step(
        self, tokens: Int[Tensor, " rows"], cache: PlainCache
    ) -> Float[Tensor, "rows vocabulary"]:
        """Reads one more token of each row."""
        cache.mask = torch.cat([cache.mask, cache.mask.new_ones(len(tokens), 1)], dim=1)
        return self._forward(tokens[:, None], cache)

    def _forward(self, tokens: Tensor, cache: PlainCache) -> Tensor:
        with autocast(tokens.device, self._compute):
            logits: Tensor = self._model(
                input_ids=tokens,
                attention_mask=cache.mask.long(),
                position_ids=position_ids(cache.mask)[:, -tokens.shape[1] :],
                past_key_values=cache.states,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        return logits[:, -1]
