"""Keys and values of the tokens so far, in storage that is made ahead of time.

transformers' own cache concatenates at every token, which copies everything each time. This one
copies once in `BLOCK` tokens.
"""

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

__all__ = ["growing_cache"]

BLOCK = 32


class _GrowingLayer(DynamicLayer):
    """`keys` and `values` are views of larger storage; `[batch, heads, time, size]`."""

    _key_store: Tensor
    _value_store: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._key_store = key_states[:, :, :0]
        self._value_store = value_states[:, :, :0]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self._key_store.shape[2]:
            self._key_store = _enlarged(self._key_store, start, end + BLOCK)
            self._value_store = _enlarged(self._value_store, start, end + BLOCK)
        self._key_store[:, :, start:end] = key_states
        self._value_store[:, :, start:end] = value_states
        return self._show(end)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            end = self.get_seq_length()
            self._key_store = self._key_store.repeat_interleave(repeats, dim=0)
            self._value_store = self._value_store.repeat_interleave(repeats, dim=0)
            self._show(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.is_initialized:
            end = self.get_seq_length()
            self._key_store = self._key_store[indices]
            self._value_store = self._value_store[indices]
            self._show(end)

    def _show(self, end: int) -> tuple[Tensor, Tensor]:
        keys, values = self._key_store[:, :, :end], self._value_store[:, :, :end]
        self.keys, self.values = keys, values
        return keys, values


def _enlarged(store: Tensor, used: int, size: int) -> Tensor:
    larger = store.new_empty(*store.shape[:2], size, store.shape[3])
    larger[:, :, :used] = store[:, :, :used]
    return larger


def growing_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for a model; layers with a sliding window stay those of transformers."""
    cache = DynamicCache(config=config)
    cache.layers = [
        _GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
