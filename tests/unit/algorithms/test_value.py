"""The critic's loss and explained variance, against hand-computed numbers and numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import explained_variance, ppo_value_loss, value_sigma2

SEEDS = st.integers(0, 10**6)
OLD = torch.ones(1, 4, dtype=torch.float64)
VALUES = torch.tensor([[1.1, 1.5, 0.5, 1.5]], dtype=torch.float64)
RETURNS = torch.tensor([[2.0, 2.0, 2.0, 1.2]], dtype=torch.float64)
ALL = torch.ones(1, 4, dtype=torch.bool)


def per_element(**options):
    """The loss of each of the four elements, by masking the other three out."""
    return [
        ppo_value_loss(VALUES, OLD, RETURNS, torch.arange(4)[None] == i, **options).loss.item()
        for i in range(4)
    ]


def test_clipped_loss_takes_the_worse_of_two_squares():
    loss, metrics = ppo_value_loss(VALUES, OLD, RETURNS, ALL, clip=0.2)
    assert loss.item() == pytest.approx(0.47375, abs=1e-12)
    assert per_element(clip=0.2) == pytest.approx([0.405, 0.32, 1.125, 0.045], abs=1e-12)
    assert metrics["value/clip_fraction"].item() == 0.25
    assert metrics["value/error"].item() == pytest.approx((0.81 + 0.25 + 2.25 + 0.09) / 4)
    assert metrics["value/mean"].item() == pytest.approx(1.15)


def test_the_variant_without_the_maximum_is_another_loss():
    clipped = VALUES.clamp(0.8, 1.2)
    without_maximum = (clipped - RETURNS).square().mean().item()
    # .81 + .64 + 1.44 + 0, over 4.
    assert without_maximum == pytest.approx(0.7225, abs=1e-12)
    assert abs(2 * 0.47375 - without_maximum) > 0.2


def test_clipping_can_be_off():
    loss, metrics = ppo_value_loss(VALUES, OLD, RETURNS, ALL, clip=None)
    assert loss.item() == pytest.approx(0.5 * (0.81 + 0.25 + 2.25 + 0.09) / 4, abs=1e-12)
    assert metrics["value/clip_fraction"].item() == 0


def test_normalised_loss_is_in_units_of_the_old_critics_error():
    sigma2 = value_sigma2(OLD, RETURNS, ALL)
    assert sigma2.item() == pytest.approx(0.76, abs=1e-12)
    assert sigma2.sqrt().item() == pytest.approx(0.8717798, abs=5e-8)
    loss, _ = ppo_value_loss(VALUES, OLD, RETURNS, ALL, clip=0.2, normalize=True)
    assert loss.item() == pytest.approx(0.6302119, abs=5e-8)
    elements = per_element(clip=0.2, normalize=True, sigma2=sigma2)
    assert elements == pytest.approx([0.5328947, 0.448479, 1.4802632, 0.0592105], abs=5e-8)


@pytest.mark.parametrize("normalize", [True, False])
def test_only_the_normalised_loss_ignores_the_scale_of_the_reward(normalize):
    plain, scaled = (
        ppo_value_loss(k * VALUES, k * OLD, k * RETURNS, ALL, clip=0.2, normalize=normalize).loss
        for k in (1, 10)
    )
    assert torch.allclose(plain, scaled, rtol=1e-12) is normalize


def test_sigma_must_span_the_step_for_micro_batches_to_add_up():
    whole = ppo_value_loss(VALUES, OLD, RETURNS, ALL, clip=0.2, normalize=True).loss.item()
    halves = [ALL & (torch.arange(4) < 2), ALL & (torch.arange(4) >= 2)]
    sigma2 = value_sigma2(OLD, RETURNS, ALL)

    def total(**options):
        return sum(
            ppo_value_loss(
                VALUES, OLD, RETURNS, half, clip=0.2, normalize=True, denominator=4, **options
            ).loss.item()
            for half in halves
        )

    assert total(sigma2=sigma2) == pytest.approx(whole, abs=1e-12)
    assert abs(total() - whole) > 0.05


def test_two_ranks_have_the_sigma_of_one(on_ranks):
    parts = [ALL & (torch.arange(4) < 3), ALL & (torch.arange(4) >= 3)]
    found = on_ranks(
        [lambda all_sum, m=m: value_sigma2(OLD, RETURNS, m, all_sum=all_sum) for m in parts]
    )
    assert [x.item() for x in found] == pytest.approx([0.76, 0.76], abs=1e-12)


def test_a_perfect_old_critic_does_not_divide_by_zero():
    loss, _ = ppo_value_loss(VALUES, RETURNS, RETURNS, ALL, clip=0.2, normalize=True)
    assert value_sigma2(RETURNS, RETURNS, ALL).item() == 1e-8
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"clip": 0.0}, "clip"), ({"clip": 0.2, "sigma2": torch.ones(())}, "normalize")],
)
def test_contradictory_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ppo_value_loss(VALUES, OLD, RETURNS, ALL, **options)


def test_only_the_new_values_receive_a_gradient():
    inputs = [torch.randn(1, 3, requires_grad=True) for _ in range(3)]
    mask = torch.ones(1, 3, dtype=torch.bool)
    ppo_value_loss(*inputs, mask, clip=0.2, normalize=True).loss.backward()
    assert [x.grad is not None for x in inputs] == [True, False, False]


@pytest.mark.parametrize("normalize", [True, False])
@settings(max_examples=30)
@given(seed=SEEDS)
def test_what_the_mask_hides_and_how_rows_are_laid_out_change_nothing(
    normalize, seed, ragged, garbage
):
    batch = ragged(seed)
    order = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(seed))
    plain = ppo_value_loss(*batch.critic(), clip=0.2, normalize=normalize)
    moved = batch.map(lambda x: torch.nn.functional.pad(x[order], (2, 50), value=0))
    values, old, returns = (garbage(x, moved.mask) for x in moved.critic()[:3])
    values.requires_grad_()
    loss, metrics = ppo_value_loss(values, old, returns, moved.mask, clip=0.2, normalize=normalize)
    loss.backward()
    assert torch.allclose(loss, plain.loss, rtol=1e-12, atol=1e-12)
    for name, value in plain.metrics.items():
        assert torch.allclose(metrics[name], value, rtol=1e-12, atol=1e-12), name
    assert values.grad[~moved.mask].abs().sum() == 0


def test_an_empty_batch_gives_zero_with_gradient():
    values = VALUES.clone().requires_grad_()
    loss, metrics = ppo_value_loss(values, OLD, RETURNS, ~ALL, clip=0.2, normalize=True)
    assert loss.item() == 0
    assert loss.requires_grad
    assert not any(value.isnan() for value in metrics.values())


def test_explained_variance_of_known_critics():
    assert explained_variance(RETURNS, RETURNS, ALL).item() == 1
    assert explained_variance(torch.full_like(RETURNS, 7), RETURNS, ALL).item() == pytest.approx(
        0, abs=1e-12
    )
    # The opposite sign doubles every residual: 1 - 4.
    assert explained_variance(-RETURNS, RETURNS, ALL).item() == pytest.approx(-3, abs=1e-12)


@pytest.mark.parametrize("tokens", [0, 1, 4])
def test_explained_variance_without_variance_is_zero(tokens):
    constant = torch.full((1, 4), 0.1)
    found = explained_variance(torch.randn(1, 4), constant, torch.arange(4)[None] < tokens)
    assert found.item() == 0


@settings(max_examples=40)
@given(seed=SEEDS)
def test_explained_variance_equals_numpy(seed, ragged, garbage):
    batch = ragged(seed)
    values, returns = garbage(batch.values, batch.mask), garbage(batch.returns, batch.mask)
    found = explained_variance(values, returns, batch.mask)
    v, r = batch.values[batch.mask].numpy(), batch.returns[batch.mask].numpy()
    expected = 1 - (r - v).var() / r.var() if r.size > 1 and np.ptp(r) > 0 else 0
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
