"""The growing cache holds what transformers' own holds, whatever is done to it."""

import pytest
import torch
from transformers import DynamicCache

from tutelage.generation.cache import BLOCK, growing_cache


def both(model) -> tuple[DynamicCache, DynamicCache]:
    return growing_cache(model.config), DynamicCache(config=model.config)


def states(rows: int, time: int) -> torch.Tensor:
    return torch.randn(rows, 2, time, 4)


@pytest.mark.parametrize("first", [1, BLOCK - 1, BLOCK, 3 * BLOCK])
def test_holds_the_same_after_every_operation(tiny_causal_lm, first):
    ours, theirs = both(tiny_causal_lm("llama"))
    rows = 3

    def update(time: int) -> None:
        keys, values = states(rows, time), states(rows, time)
        for mine, other in zip(
            ours.update(keys, values, 0), theirs.update(keys, values, 0), strict=True
        ):
            assert torch.equal(mine, other)

    update(first)
    for cache in (ours, theirs):
        cache.batch_repeat_interleave(2)
    rows = 6
    for _ in range(BLOCK + 2):
        update(1)
    kept = torch.tensor([4, 0])
    for cache in (ours, theirs):
        cache.batch_select_indices(kept)
    rows = 2
    for _ in range(BLOCK):
        update(1)
    assert ours.get_seq_length() == theirs.get_seq_length() == first + 2 * BLOCK + 2


def test_storage_is_copied_once_in_a_block_of_tokens(tiny_causal_lm):
    ours, _ = both(tiny_causal_lm("llama"))
    ours.update(states(2, 5), states(2, 5), 0)
    places = set()
    for _ in range(4 * BLOCK):
        keys, _ = ours.update(states(2, 1), states(2, 1), 0)
        places.add(keys.data_ptr())
    assert len(places) <= 5


def test_a_row_kept_apart_is_not_changed_by_later_tokens(tiny_causal_lm):
    ours, _ = both(tiny_causal_lm("llama"))
    keys, _ = ours.update(states(1, 3), states(1, 3), 0)
    before = keys.clone()
    ours.update(states(1, 1), states(1, 1), 0)
    assert torch.equal(keys, before)


def test_layers_with_a_sliding_window_stay_those_of_transformers(tiny_causal_lm):
    config = tiny_causal_lm("llama").config
    config.layer_types = ["sliding_attention", "full_attention"]
    config.sliding_window = 4
    kinds = [type(layer).__name__ for layer in growing_cache(config).layers]
    assert kinds == ["DynamicSlidingWindowLayer", "_GrowingLayer"]
