"""GAE against hand-computed tables, its definition as a double sum, and identities."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import gae

SEEDS = st.integers(0, 10**6)
UNIT = st.floats(0, 1)
REWARDS = [0.0, 0.0, 0.0, 1.0]
VALUES = [0.5, 0.6, 0.7, 0.8]


def row(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


def mask_of(*bits):
    return torch.tensor([bits], dtype=torch.bool)


def close(actual, expected, tolerance=1e-12):
    expected = torch.as_tensor(expected, dtype=actual.dtype).view_as(actual)
    assert torch.allclose(actual, expected, rtol=0, atol=tolerance), f"{actual} != {expected}"


TABLE = [
    (1.0, 0.95, [0.456725, 0.3755, 0.29, 0.2], [0.956725, 0.9755, 0.99, 1.0]),
    (1.0, 1.0, [0.5, 0.4, 0.3, 0.2], [1.0, 1.0, 1.0, 1.0]),
    (1.0, 0.0, [0.1, 0.1, 0.1, 0.2], [0.6, 0.7, 0.8, 1.0]),
    (0.9, 0.8, [0.1466176, 0.14808, 0.164, 0.2], [0.6466176, 0.74808, 0.864, 1.0]),
]


@pytest.mark.parametrize(("gamma", "lam", "advantages", "returns"), TABLE)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_hand_computed_table(gamma, lam, advantages, returns, dtype, tolerance):
    found = gae(
        row(*REWARDS).to(dtype), row(*VALUES).to(dtype), mask_of(1, 1, 1, 1), gamma=gamma, lam=lam
    )
    close(found[0], advantages, tolerance)
    close(found[1], returns, tolerance)


def test_a_cut_off_row_continues_with_the_bootstrap_value():
    rewards, mask = row(0, 0, 0, 0), mask_of(1, 1, 1, 1)
    bootstrap = torch.tensor([0.9], dtype=torch.float64)
    advantages, returns = gae(rewards, row(*VALUES), mask, gamma=1.0, lam=0.95, bootstrap=bootstrap)
    close(advantages, [0.3709875, 0.28525, 0.195, 0.1])
    close(returns, [0.8709875, 0.88525, 0.895, 0.9])
    # The control: the same row treated as ended.
    ended, ended_returns = gae(rewards, row(*VALUES), mask, gamma=1.0, lam=0.95)
    close(ended, [-0.40065, -0.527, -0.66, -0.8])
    close(ended_returns, [0.09935, 0.073, 0.04, 0.0])


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_bootstrapping_equals_adding_the_discounted_value_to_the_last_reward(gamma):
    rewards, values = row(0.1, -0.2, 0.3), row(0.5, 0.6, 0.7)
    mask, bootstrap = mask_of(1, 1, 1), torch.tensor([0.9], dtype=torch.float64)
    with_bootstrap, _ = gae(rewards, values, mask, gamma=gamma, lam=0.8, bootstrap=bootstrap)
    in_the_reward, _ = gae(rewards + row(0, 0, gamma * 0.9), values, mask, gamma=gamma, lam=0.8)
    close(with_bootstrap, in_the_reward)


def test_bootstrap_enters_after_the_last_written_token_not_after_the_padding():
    bootstrap = torch.tensor([0.9], dtype=torch.float64)
    rewards, values = row(0, 0, 0, 0, 9, 9), row(*VALUES, 9, 9)
    advantages, _ = gae(
        rewards, values, mask_of(1, 1, 1, 1, 0, 0), gamma=1.0, lam=0.95, bootstrap=bootstrap
    )
    close(advantages, [0.3709875, 0.28525, 0.195, 0.1, 0, 0])


def test_padding_on_either_side_is_never_read():
    rewards, values = (-0.1, 0.7), (0.2, 0.4)
    right, right_returns = gae(
        row(*rewards, 55, 55), row(*values, 99, 99), mask_of(1, 1, 0, 0), gamma=1.0, lam=0.95
    )
    close(right, [0.385, 0.3, 0, 0])
    close(right_returns, [0.585, 0.7, 0, 0])
    left, left_returns = gae(
        row(55, 55, *rewards), row(99, 99, *values), mask_of(0, 0, 1, 1), gamma=1.0, lam=0.95
    )
    close(left, [0, 0, 0.385, 0.3])
    close(left_returns, [0, 0, 0.585, 0.7])
    # The control: without a mask the padding enters the recursion.
    unmasked, _ = gae(
        row(*rewards, 55, 55), row(*values, 99, 99), mask_of(1, 1, 1, 1), gamma=1.0, lam=0.95
    )
    assert unmasked[0, 0] > 50


def test_observations_between_two_turns_take_no_time():
    mask = mask_of(1, 1, 0, 0, 1, 1)
    rewards, values = row(0, 0, 0, 0, 0, 1), row(0.1, 0.2, 9, 9, 0.3, 0.4)
    advantages, _ = gae(rewards, values, mask, gamma=1.0, lam=0.95)
    close(advantages, [0.799675, 0.7365, 0, 0, 0.67, 0.6])
    compact, _ = gae(
        row(0, 0, 0, 1), row(0.1, 0.2, 0.3, 0.4), mask_of(1, 1, 1, 1), gamma=1.0, lam=0.95
    )
    close(advantages[mask], compact)
    for replaced in (-1e9, torch.nan):
        other, _ = gae(
            rewards, row(0.1, 0.2, replaced, replaced, 0.3, 0.4), mask, gamma=1.0, lam=0.95
        )
        assert torch.equal(other, advantages)


def test_a_reward_on_an_observation_is_refused_instead_of_lost():
    with pytest.raises(ValueError, match=r"reward 0\.5 at \[0, 1\]"):
        gae(row(0, 0.5, 1), row(0, 0, 0), mask_of(1, 0, 1), gamma=1.0, lam=0.95)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        gae(row(0, 1), row(0), mask_of(1, 1), gamma=1.0, lam=1.0)
    with pytest.raises(ValueError, match="bootstrap"):
        gae(row(0), row(0), mask_of(1), gamma=1.0, lam=1.0, bootstrap=torch.zeros(2))


def brute_force(rewards, values, mask, gamma, lam, bootstrap):
    """A_t = Σ_k (γλ)^k δ_{t+k}, row by row, over the written tokens only."""
    advantages = torch.zeros_like(values)
    for i, written in enumerate(mask):
        steps = written.nonzero().flatten().tolist()
        following = [*(values[i, t].item() for t in steps[1:]), bootstrap[i].item()]
        deltas = [
            rewards[i, t].item() + gamma * after - values[i, t].item()
            for t, after in zip(steps, following, strict=False)
        ]
        for k, t in enumerate(steps):
            advantages[i, t] = sum((gamma * lam) ** j * delta for j, delta in enumerate(deltas[k:]))
    return advantages


@settings(max_examples=100)
@given(seed=SEEDS, gamma=UNIT, lam=UNIT)
def test_equals_the_double_sum_of_its_definition(seed, gamma, lam, ragged, garbage):
    batch = ragged(seed)
    bootstrap = batch.returns[:, 0].contiguous()
    expected = brute_force(batch.rewards, batch.values, batch.mask, gamma, lam, bootstrap)
    # Rewards may not lie between written tokens, so only the values are spoilt everywhere.
    spoilt = garbage(batch.values, batch.mask)
    advantages, returns = gae(
        batch.rewards, spoilt, batch.mask, gamma=gamma, lam=lam, bootstrap=bootstrap
    )
    close(advantages, expected)
    close(returns, torch.where(batch.mask, expected + batch.values, 0))


@settings(max_examples=30)
@given(seed=SEEDS, gamma=UNIT)
def test_lambda_1_gives_the_return_minus_the_value(seed, gamma, ragged):
    batch = ragged(seed)
    advantages, returns = gae(batch.rewards, batch.values, batch.mask, gamma=gamma, lam=1.0)
    expected = torch.zeros_like(returns)
    for i, written in enumerate(batch.mask):
        total = 0.0
        for t in reversed(written.nonzero().flatten().tolist()):
            total = batch.rewards[i, t].item() + gamma * total
            expected[i, t] = total
    close(returns, expected)
    close(advantages, torch.where(batch.mask, expected - batch.values, 0))


@settings(max_examples=30)
@given(seed=SEEDS, lam=UNIT)
def test_returns_are_raw_advantages_plus_values_without_gradient(seed, lam, ragged):
    batch = ragged(seed)
    values = batch.values.requires_grad_()
    advantages, returns = gae(batch.rewards, values, batch.mask, gamma=1.0, lam=lam)
    assert not advantages.requires_grad
    assert not returns.requires_grad
    close(returns - torch.where(batch.mask, values.detach(), 0), advantages)


def test_policy_and_critic_may_have_their_own_lambda():
    arguments = row(*REWARDS), row(*VALUES), mask_of(1, 1, 1, 1)
    advantages, _ = gae(*arguments, gamma=1.0, lam=0.95)
    _, returns = gae(*arguments, gamma=1.0, lam=1.0)
    close(advantages, [0.456725, 0.3755, 0.29, 0.2])
    close(returns, [1, 1, 1, 1])


@settings(max_examples=30)
@given(seed=SEEDS)
def test_order_of_rows_and_extra_padding_change_nothing(seed, ragged, garbage):
    batch = ragged(seed)
    plain = gae(batch.rewards, batch.values, batch.mask, gamma=0.9, lam=0.8)
    order = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(seed))
    for left, right in itertools.product((0, 3), repeat=2):
        moved = batch.map(
            lambda x, pad=(left, right): torch.nn.functional.pad(x[order], pad, value=0)
        )
        outer = moved.mask.cumsum(1).eq(0) | moved.mask.flip(1).cumsum(1).flip(1).eq(0)
        rewards = garbage(moved.rewards, ~outer)
        found = gae(rewards, garbage(moved.values, moved.mask), moved.mask, gamma=0.9, lam=0.8)
        for new, old in zip(found, plain, strict=True):
            assert torch.equal(new[:, left : new.shape[1] - right], old[order])
            assert new[~moved.mask].abs().sum() == 0
