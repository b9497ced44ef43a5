"""Masked sums, means, variance and whitening, against hand-computed numbers and numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import (
    last_token,
    masked_mean,
    masked_variance,
    masked_whiten,
    zero_outside,
)
from tutelage.algorithms.masked import require_same_shape

SEEDS = st.integers(0, 10**6)
# Four tokens 1, 2, 3 | 4: mean 2.5, population variance 1.25.
FOUR = torch.tensor([[1.0, 2, 3, 0], [4, 0, 0, 0]], dtype=torch.float64)
FOUR_MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)


def close(actual, expected, tolerance=1e-12):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    assert torch.allclose(actual, expected, rtol=0, atol=tolerance), f"{actual} != {expected}"


def test_nan_behind_the_mask_reaches_neither_value_nor_gradient():
    x = torch.tensor([1.0, torch.nan], requires_grad=True)
    mask = torch.tensor([True, False])
    kept = zero_outside(x, mask)
    assert kept.tolist() == [1.0, 0.0]
    kept.sum().backward()
    assert x.grad.tolist() == [1.0, 0.0]
    # The control: a product with the mask lets it through.
    assert (x * mask).sum().isnan()


def test_last_token_is_marked_on_any_side_of_the_padding():
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    assert last_token(mask).int().tolist() == [
        [0, 1, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]


def test_masked_mean_divides_by_the_tokens_that_count():
    close(masked_mean(FOUR, FOUR_MASK), 2.5)
    assert float(FOUR.mean()) == 1.25


def test_masked_mean_divides_by_the_denominator_it_is_given():
    close(masked_mean(FOUR, FOUR_MASK, 20), 0.5)
    per_row = torch.tensor([[6.0], [8.0]], dtype=torch.float64)
    close(masked_mean(FOUR, FOUR_MASK, per_row), 1.5)


@pytest.mark.parametrize("denominator", [None, 0, torch.tensor(0)])
def test_mean_of_nothing_is_zero_and_still_has_a_gradient(denominator):
    x = torch.full((2, 3), torch.nan, requires_grad=True)
    mean = masked_mean(x, torch.zeros(2, 3, dtype=torch.bool), denominator)
    assert mean.item() == 0
    assert mean.requires_grad
    mean.backward()
    assert x.grad.abs().sum() == 0


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"values \(2, 1\)"):
        require_same_shape(rewards=torch.zeros(2, 3), values=torch.zeros(2, 1))


@settings(max_examples=40)
@given(seed=SEEDS)
def test_variance_equals_numpy_over_the_kept_tokens(seed, ragged, garbage):
    batch = ragged(seed)
    kept = batch.values[batch.mask].numpy()
    expected = kept.var() if kept.size else 0.0
    close(masked_variance(garbage(batch.values, batch.mask), batch.mask), expected)


def test_whitening_the_four_tokens():
    whitened = masked_whiten(FOUR, FOUR_MASK)
    # (x - 2.5) / sqrt(1.25 + 1e-8); the 1e-8 changes the ninth digit.
    close(whitened[FOUR_MASK], np.array([-1.3416408, -0.4472136, 0.4472136, 1.3416408]), 5e-8)
    assert whitened[~FOUR_MASK].abs().sum() == 0


def test_whitening_is_neither_unbiased_nor_unmasked():
    whitened = masked_whiten(FOUR, FOUR_MASK)[0, 0]
    kept = FOUR[FOUR_MASK]
    unbiased = (1 - kept.mean()) / kept.std(unbiased=True)
    unmasked = (1 - FOUR.mean()) / FOUR.std(unbiased=False)
    close(unbiased, -1.161895, 5e-7)
    close(unmasked, -0.1690309, 5e-8)
    assert abs(whitened - unbiased) > 0.1
    assert abs(whitened - unmasked) > 1


@settings(max_examples=40)
@given(seed=SEEDS)
def test_whitened_tokens_have_mean_0_and_variance_1(seed, ragged, garbage):
    batch = ragged(seed)
    whitened = masked_whiten(garbage(batch.rewards, batch.mask), batch.mask)
    kept = whitened[batch.mask].numpy()
    assert np.all(whitened[~batch.mask].numpy() == 0)
    if kept.size > 1:
        assert abs(kept.mean()) < 1e-6
        # A small variance v comes out as v / (v + 1e-8).
        variance = batch.rewards[batch.mask].numpy().var()
        assert abs(kept.var() - variance / (variance + 1e-8)) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.1, 1e4, -3e7])
@pytest.mark.parametrize("tokens", [0, 1, 3, 7])
def test_equal_values_whiten_to_zero(dtype, value, tokens):
    x = torch.full((1, 8), value, dtype=dtype)
    mask = (torch.arange(8) < tokens).unsqueeze(0)
    assert masked_whiten(x, mask).abs().max() == 0


def test_whitening_survives_a_large_mean_in_single_precision():
    steps = torch.arange(1000, dtype=torch.float32).unsqueeze(0) / 64
    mask = torch.ones(1, 1000, dtype=torch.bool)
    expected = masked_whiten(steps.double(), mask)
    # 1e4 + k/64 is exact in fp32, so only the algorithm can lose digits.
    close(masked_whiten(1e4 + steps, mask).double(), expected, 2e-6)
    naive = (1e4 + steps).square().mean() - (1e4 + steps).mean().square()
    assert abs(naive - steps.double().var(unbiased=False)) > 1


def test_two_ranks_whiten_like_one(on_ranks):
    alone = masked_whiten(FOUR, FOUR_MASK)
    rank0, rank1 = on_ranks(
        [
            lambda all_sum: masked_whiten(FOUR[:1], FOUR_MASK[:1], all_sum=all_sum),
            lambda all_sum: masked_whiten(FOUR[1:], FOUR_MASK[1:], all_sum=all_sum),
        ]
    )
    close(torch.cat([rank0, rank1]), alone)
    # The control: each rank on its own moments.
    assert (masked_whiten(FOUR[:1], FOUR_MASK[:1]) - alone[:1]).abs().max() > 0.1


def test_whitening_can_keep_the_mean():
    rewards = torch.arange(1.2, 2.05, 0.1, dtype=torch.float64).unsqueeze(0)
    mask = torch.ones_like(rewards, dtype=torch.bool)
    close(masked_variance(rewards, mask), 0.0666667, 5e-8)
    kept = masked_whiten(rewards, mask, keep_mean=True)
    close(kept[0, 0], 0.0508071, 5e-7)
    close(kept.mean(), 1.6)
    close(masked_whiten(rewards, mask).mean(), 0.0)
    unbiased = (rewards - 1.6) / rewards.std(unbiased=True) + 1.6
    close(unbiased[0, 0], 0.1394, 5e-5)


def test_kept_mean_stays_inside_the_mask():
    whitened = masked_whiten(FOUR, FOUR_MASK, keep_mean=True)
    close(whitened[FOUR_MASK].mean(), 2.5)
    assert whitened[~FOUR_MASK].abs().sum() == 0
