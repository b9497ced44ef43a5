"""Returns and baselines: their definitions, and REINFORCE as a case of PPO."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.algorithms import (
    MovingBaseline,
    gae,
    masked_mean,
    normalised_returns,
    ppo_policy_loss,
    reinforce_loss,
    reward_to_go,
    subtract_baseline,
)

SEEDS = st.integers(0, 10**6)


def written(row: torch.Tensor, mask: torch.Tensor) -> list[float]:
    return row[mask].tolist()


@given(SEEDS)
def test_returns_are_discounted_sums_of_what_is_to_come(ragged, seed):
    batch = ragged(seed)
    found = reward_to_go(batch.rewards, batch.mask, gamma=0.9)
    for rewards, returns, mask in zip(batch.rewards, found, batch.mask, strict=True):
        received = written(rewards, mask)
        expected = [
            sum(0.9**k * r for k, r in enumerate(received[t:])) for t in range(len(received))
        ]
        assert written(returns, mask) == pytest.approx(expected, abs=1e-12)
        assert not returns[~mask].any()


def test_returns_by_hand():
    rewards = torch.tensor([[0.0, -0.1, -0.2, 3.0, 0.0]]).double()
    mask = torch.tensor([[False, True, True, True, False]])
    expected = torch.tensor([[0, 2.7, 2.8, 3.0, 0]]).double()
    torch.testing.assert_close(reward_to_go(rewards, mask), expected, rtol=0, atol=1e-7)
    centred = subtract_baseline(reward_to_go(rewards, mask), mask, 2.0)
    expected = torch.tensor([[0, 0.7, 0.8, 1.0, 0]]).double()
    torch.testing.assert_close(centred, expected, rtol=0, atol=1e-7)


@given(SEEDS)
def test_reinforce_is_ppo_at_ratio_1_with_lambda_1_and_no_critic(ragged, seed):
    batch = ragged(seed)
    no_critic = torch.zeros_like(batch.rewards)
    advantages, _ = gae(batch.rewards, no_critic, batch.mask, gamma=1.0, lam=1.0)
    gradients = []
    for loss in (
        lambda new: ppo_policy_loss(new, batch.logprobs, advantages, batch.mask, clip=0.2),
        lambda new: reinforce_loss(
            new, batch.logprobs, reward_to_go(batch.rewards, batch.mask), batch.mask
        ),
    ):
        new = batch.logprobs.clone().requires_grad_()
        loss(new).loss.backward()
        gradients.append(new.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-12)


def test_a_baseline_leaves_the_expected_gradient_and_lowers_its_variance():
    """Exact moments over three arms."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([11.0, 14.0, 8.0], dtype=torch.float64)
    p = logits.softmax(0).detach()
    moments = []
    for baseline in (0.0, 11.0):
        gradients = []
        for arm in range(3):
            advantage = subtract_baseline(reward[arm].view(1, 1), torch.ones(1, 1).bool(), baseline)
            log_p = logits.log_softmax(0)[arm].view(1, 1)
            loss = reinforce_loss(log_p, log_p.detach(), advantage, torch.ones(1, 1).bool()).loss
            gradients.append(torch.autograd.grad(-loss, logits)[0])
        stacked = torch.stack(gradients)
        mean = (p[:, None] * stacked).sum(0)
        moments.append((mean, (p[:, None] * (stacked - mean).square()).sum()))
    (plain, noisy), (with_baseline, calm) = moments
    exact = p * (reward - p @ reward)
    torch.testing.assert_close(plain, exact, rtol=0, atol=1e-12)
    torch.testing.assert_close(with_baseline, exact, rtol=0, atol=1e-12)
    assert calm < noisy / 10


@given(SEEDS)
def test_normalised_returns_have_the_moments_of_the_round(ragged, seed):
    batch = ragged(seed)
    found = normalised_returns(batch.rewards, batch.mask)[batch.mask].numpy()
    plain = reward_to_go(batch.rewards, batch.mask)[batch.mask].numpy()
    if len(plain) > 1 and plain.std() > 1e-3:
        # 1e-8 is added to the variance.
        np.testing.assert_allclose(found, (plain - plain.mean()) / plain.std(), atol=1e-4)
    else:
        assert np.isfinite(found).all()


def test_two_ranks_normalise_like_one(ragged, on_ranks):
    batch = ragged(3)
    half = len(batch.mask) // 2
    assert batch.mask[:half].any()
    assert batch.mask[half:].any()
    rows = (slice(0, half), slice(half, None))
    parts = on_ranks(
        [
            lambda all_sum, part=part: normalised_returns(
                batch.rewards[part], batch.mask[part], all_sum=all_sum
            )
            for part in rows
        ]
    )
    whole = normalised_returns(batch.rewards, batch.mask)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-12)


def test_moving_baseline_is_an_exponential_average_without_the_pull_of_its_start():
    baseline = MovingBaseline(decay=0.9)
    mask = torch.ones(1, 1).bool()
    assert baseline.value == 0
    for mean in (4.0, 6.0, 1.0):
        baseline.update(torch.tensor([[mean]]), mask)
    weights = np.array([0.9**2, 0.9, 1.0])
    assert baseline.value == pytest.approx((weights @ [4, 6, 1]) / weights.sum(), abs=1e-12)


def test_moving_baseline_reads_written_tokens_alone_and_goes_on_from_its_state(garbage):
    mask = torch.tensor([[True, False], [True, True]])
    returns = garbage(torch.tensor([[1.0, 0.0], [2.0, 6.0]]), mask)
    baseline = MovingBaseline(decay=0.5)
    baseline.update(returns, mask)
    baseline.update(returns, torch.zeros_like(mask))
    assert baseline.value == pytest.approx(3.0)
    again = MovingBaseline(decay=0.5)
    again.load_state_dict(baseline.state_dict())
    for each in (baseline, again):
        each.update(torch.tensor([[9.0]]), torch.ones(1, 1).bool())
    assert again.state_dict() == baseline.state_dict()
    assert again.value == pytest.approx(3 * 1 / 3 + 9 * 2 / 3)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_baseline_that_never_learns_is_refused(decay):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        MovingBaseline(decay)


@given(SEEDS)
def test_masked_garbage_changes_no_loss(ragged, garbage, seed):
    batch = ragged(seed)
    clean = reinforce_loss(*batch.policy())
    spoilt = reinforce_loss(*(garbage(x, batch.mask) for x in batch.policy()[:3]), batch.mask)
    assert spoilt.loss.item() == clean.loss.item()
    assert clean.loss.item() == pytest.approx(
        -masked_mean(batch.advantages * batch.logprobs, batch.mask).item(), abs=1e-12
    )
