"""Importance weights: a hand case, unbiasedness by a million draws, refusals."""

import math

import pytest
import torch

from tutelage.algorithms import importance_metrics, importance_weight, ppo_policy_loss

SAMPLER = torch.tensor([[-2.0, -2.0, -2.5, -1.0]], dtype=torch.float64)
OLD = SAMPLER + torch.tensor([[0.0, 0.5, 2.0, 9.0]], dtype=torch.float64)
MASK = torch.tensor([[1, 1, 1, 0]], dtype=torch.bool)


def test_weights_are_ratios_up_to_the_cap_and_zero_outside_the_mask():
    weights = importance_weight(OLD, SAMPLER, MASK, cap=2.0)
    assert weights.tolist()[0] == pytest.approx([1, 1.6487212707, 2, 0], abs=1e-10)
    free = importance_weight(OLD, SAMPLER, MASK, cap=math.inf)
    assert free[0, 2].item() == pytest.approx(math.e**2)


def test_weights_carry_no_gradient():
    old = OLD.clone().requires_grad_()
    assert not importance_weight(old, SAMPLER, MASK, cap=2.0).requires_grad


def test_a_sampler_that_agrees_leaves_the_loss_exactly_as_it_was():
    new, advantages = torch.randn(2, 1, 4, dtype=torch.float64)
    weights = importance_weight(OLD, OLD.clone(), MASK, cap=2.0)
    weighted = ppo_policy_loss(new, OLD, weights * advantages, MASK, clip=0.2).loss
    assert torch.equal(weighted, ppo_policy_loss(new, OLD, advantages, MASK, clip=0.2).loss)


def test_without_a_cap_the_weighted_mean_is_unbiased():
    old = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    sampler = torch.tensor([0.25, 0.25, 0.25, 0.25], dtype=torch.float64)
    advantage = torch.tensor([1.0, -1.0, 2.0, 5.0], dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(sampler, 1_000_000, replacement=True, generator=random)[None]
    everything = torch.ones_like(drawn, dtype=torch.bool)
    weights = importance_weight(old.log()[drawn], sampler.log()[drawn], everything, cap=math.inf)
    estimates = weights * advantage[drawn]
    exact = (old * advantage).sum()  # 1.0; the unweighted mean is 1.75
    error = abs(estimates.mean() - exact)
    assert error < 4 * estimates.std() / 1000
    assert abs(advantage[drawn].mean() - exact) > 0.5


def test_metrics_say_how_far_the_sampler_is():
    metrics = importance_metrics(OLD, SAMPLER, MASK, cap=2.0)
    assert metrics["sampler/gap_mean"].item() == pytest.approx(2.5 / 3)
    assert metrics["sampler/gap_max"].item() == pytest.approx(2.0)
    assert metrics["sampler/truncated_fraction"].item() == pytest.approx(1 / 3)
    weights = [1, math.exp(0.5), math.exp(2)]
    ess = sum(weights) ** 2 / (3 * sum(w**2 for w in weights))
    assert metrics["sampler/ess"].item() == pytest.approx(ess)
    agreeing = importance_metrics(OLD, OLD, MASK, cap=2.0)
    assert agreeing["sampler/ess"].item() == pytest.approx(1)
    nothing = importance_metrics(OLD, SAMPLER, torch.zeros_like(MASK), cap=2.0)
    assert all(value.item() == 0 for value in nothing.values())


def test_a_missing_sampler_logprob_is_an_error_only_where_it_counts():
    missing = SAMPLER.clone()
    missing[0, 3] = torch.nan
    assert importance_weight(OLD, missing, MASK, cap=2.0).isfinite().all()
    missing[0, 1] = torch.nan
    with pytest.raises(ValueError, match="every token it drew"):
        importance_weight(OLD, missing, MASK, cap=2.0)
