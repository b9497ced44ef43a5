"""Score normalisation against numpy over everything that was seen."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import RunningMoments, fit_affine

NUMBERS = st.lists(st.lists(st.floats(-1e3, 1e3), min_size=0, max_size=7), min_size=1, max_size=4)


def tensors(batches):
    return [torch.tensor(batch, dtype=torch.float64) for batch in batches]


@settings(max_examples=50)
@given(batches=NUMBERS)
def test_any_batches_give_the_moments_of_their_concatenation(batches):
    moments = RunningMoments()
    for batch in tensors(batches):
        moments.update(batch)
    everything = np.concatenate([np.asarray(batch) for batch in batches])
    assert moments.count == everything.size
    if everything.size:
        assert moments.mean == pytest.approx(everything.mean(), rel=1e-12, abs=1e-9)
        assert moments.variance == pytest.approx(everything.var(), rel=1e-12, abs=1e-9)


def test_three_uneven_batches_to_twelve_digits():
    batches = tensors([[1.5, -2.0], [0.25], [3.0, 7.5, -1.0, 0.5]])
    moments = RunningMoments()
    for batch in batches:
        moments.update(batch)
    everything = torch.cat(batches).numpy()
    assert moments.mean == pytest.approx(everything.mean(), abs=1e-12)
    assert moments.variance == pytest.approx(everything.var(), abs=1e-12)


def test_a_large_mean_does_not_drown_the_spread():
    moments = RunningMoments()
    for start in range(0, 1000, 100):
        moments.update(1e9 + torch.arange(start, start + 100, dtype=torch.float64))
    assert moments.variance == pytest.approx((1000**2 - 1) / 12, rel=1e-9)


def test_ranks_share_their_moments(on_ranks):
    parts = tensors([[1.0, 2.0, 3.0], [10.0]])

    def program(part):
        def update(all_sum):
            moments = RunningMoments()
            moments.update(torch.tensor([5.0]), all_sum=all_sum)
            moments.update(part, all_sum=all_sum)
            return moments

        return update

    for moments in on_ranks([program(part) for part in parts]):
        expected = np.array([5.0, 5.0, 1.0, 2.0, 3.0, 10.0])
        assert moments.count == 6
        assert moments.mean == pytest.approx(expected.mean(), abs=1e-12)
        assert moments.variance == pytest.approx(expected.var(), abs=1e-12)


def test_failed_scores_are_masked_out_and_never_taken_for_zero():
    moments = RunningMoments()
    moments.update(torch.tensor([1.0, torch.nan, 3.0]), torch.tensor([True, False, True]))
    assert (moments.count, moments.mean) == (2, 2.0)
    with pytest.raises(ValueError, match="not finite"):
        moments.update(torch.tensor([torch.nan]))
    assert (moments.count, moments.mean) == (2, 2.0)


def test_scaling_keeps_the_sign_and_clips_last():
    moments = RunningMoments()
    assert moments.scale(torch.tensor([5.0])).item() == 5
    moments.update(torch.tensor([1.0, 5.0]))
    assert moments.std == 2
    assert moments.scale(torch.tensor([-4.0, 1.0])).tolist() == [-2, 0.5]
    assert moments.scale(torch.tensor([-4.0, 1.0]), clip=1.0).tolist() == [-1, 0.5]


def test_a_clip_bounds_the_share_of_an_outlier():
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(1000, generator=random)
    moments = RunningMoments()
    moments.update(scores)
    scores[0] = 100.0
    share = [
        (scaled[0].abs() / scaled.abs().sum()).item()
        for scaled in (moments.scale(scores), moments.scale(scores, clip=5.0))
    ]
    assert share[0] > 0.1
    assert share[1] < 0.01


def test_state_continues_where_it_stopped():
    straight, first, second = RunningMoments(), RunningMoments(), RunningMoments()
    for batch in ([1.0, 2.0], [7.0]):
        straight.update(torch.tensor(batch))
    first.update(torch.tensor([1.0, 2.0]))
    second.load_state_dict(first.state_dict())
    second.update(torch.tensor([7.0]))
    assert second.state_dict() == straight.state_dict()


def test_an_affine_map_is_fitted_to_the_wanted_scale():
    samples = torch.tensor([1.0, 5.0], dtype=torch.float64)  # mean 3, std 2
    affine = fit_affine(samples)
    assert (affine.gain, affine.bias) == (0.5, -1.5)
    random = torch.Generator().manual_seed(0)
    scores = 3 + 2 * torch.randn(1000, generator=random, dtype=torch.float64)
    mapped = fit_affine(scores, mean=1.0, std=4.0)(scores)
    assert mapped.mean().item() == pytest.approx(1, abs=1e-6)
    assert mapped.std(unbiased=False).item() == pytest.approx(4, abs=1e-6)


def test_scores_without_variance_cannot_be_fitted():
    with pytest.raises(ValueError, match="same score"):
        fit_affine(torch.ones(5))
    assert math.isclose(RunningMoments().std, 0)
