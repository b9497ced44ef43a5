"""Credit within a prompt's group: numbers by hand, identities, and completions that failed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.algorithms import group_advantages, leave_one_out

NAN = torch.nan
SEEDS = st.integers(0, 10**6)


def scores_of(seed: int, samples: int | None = None) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    prompts = int(torch.randint(1, 5, (), generator=random))
    n = samples or int(torch.randint(2, 7, (), generator=random))
    return 3 * torch.randn(prompts, n, generator=random, dtype=torch.float64) + 1


def close(found: torch.Tensor, expected: torch.Tensor | list) -> None:
    wanted = torch.as_tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_leave_one_out_by_hand():
    # 1 - (2 + 6)/2 = -3,  2 - (1 + 6)/2 = -1.5,  6 - (1 + 2)/2 = 4.5
    close(
        leave_one_out(torch.tensor([[1.0, 2, 6], [5, 5, 5]]).double()), [[-3, -1.5, 4.5], [0] * 3]
    )


@given(SEEDS)
def test_leave_one_out_equals_its_definition(seed):
    scores = scores_of(seed)
    n = scores.shape[1]
    for row, advantages in zip(scores.tolist(), leave_one_out(scores).tolist(), strict=True):
        for i in range(n):
            others = [row[j] for j in range(n) if j != i]
            assert advantages[i] == pytest.approx(row[i] - sum(others) / (n - 1), abs=1e-12)


@given(SEEDS)
def test_of_two_completions_leave_one_out_is_their_difference(seed):
    scores = scores_of(seed, samples=2)
    difference = scores[:, 0] - scores[:, 1]
    close(leave_one_out(scores), torch.stack([difference, -difference], 1))


@given(SEEDS)
def test_centred_scores_are_leave_one_out_times_n_minus_1_over_n(seed):
    scores = scores_of(seed)
    n = scores.shape[1]
    close(group_advantages(scores, scale=False), leave_one_out(scores) * (n - 1) / n)


def test_group_advantages_by_hand():
    # Mean 3, deviations -2, -1, 3, population variance 14/3.
    scores = torch.tensor([[1.0, 2, 6]]).double()
    close(group_advantages(scores, scale=False), [[-2.0, -1, 3]])
    sigma = (14 / 3) ** 0.5 + 1e-6
    close(group_advantages(scores, scale=True), [[-2 / sigma, -1 / sigma, 3 / sigma]])


@given(SEEDS)
def test_scaled_advantages_have_mean_0_and_standard_deviation_1_in_each_group(seed):
    advantages = group_advantages(scores_of(seed, samples=5), scale=True).numpy()
    np.testing.assert_allclose(advantages.mean(1), 0, atol=1e-12)
    # The 1e-6 that is added to the spread.
    np.testing.assert_allclose(advantages.std(1), 1, atol=1e-4)


def test_scaling_makes_a_coin_toss_as_loud_as_a_verdict():
    """What Dr. GRPO leaves out: prompts whose completions hardly differ get the same weight."""
    scores = torch.tensor([[0.0, 0.01], [0.0, 100.0]]).double()
    scaled = group_advantages(scores, scale=True)
    torch.testing.assert_close(scaled[0], scaled[1], rtol=1e-3, atol=0)  # 1e-6 over 0.005
    assert group_advantages(scores, scale=False)[1, 1] == 50


CREDITS = [
    leave_one_out,
    lambda scores: group_advantages(scores, scale=False),
    lambda scores: group_advantages(scores, scale=True),
]


@pytest.mark.parametrize("credit", CREDITS, ids=["rloo", "centred", "scaled"])
def test_failed_scores_count_in_no_mean(credit):
    whole = credit(torch.tensor([[1.0, 2, 6]]).double())
    found = credit(torch.tensor([[1.0, NAN, 2, NAN, 6]]).double())
    close(found[:, [0, 2, 4]], whole)
    close(found[:, [1, 3]], [[0.0, 0.0]])


@pytest.mark.parametrize("credit", CREDITS, ids=["rloo", "centred", "scaled"])
@pytest.mark.parametrize("row", [[7.0, NAN, NAN], [NAN, NAN, NAN], [7.0]], ids=str)
def test_nothing_is_learned_from_fewer_than_two_usable_scores(credit, row):
    close(credit(torch.tensor([row]).double()), [[0.0] * len(row)])


@pytest.mark.parametrize("credit", CREDITS, ids=["rloo", "centred", "scaled"])
def test_groups_do_not_see_each_other_and_a_constant_changes_nothing(credit):
    first, second = torch.tensor([[1.0, 2, 6]]).double(), torch.tensor([[0.0, -4, 9]]).double()
    close(credit(torch.cat([first, second])), torch.cat([credit(first), credit(second)]))
    close(credit(first + 10), credit(first))


def test_no_gradient_flows_into_scores():
    scores = torch.tensor([[1.0, 2, 6]], requires_grad=True)
    assert not leave_one_out(scores).requires_grad
    assert not group_advantages(scores, scale=True).requires_grad


def test_the_leave_one_out_gradient_is_unbiased_and_the_centred_one_too_small():
    """Exact expectation over all pairs of three arms: the policy gradient, and half of it."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, 4.0, -2.0], dtype=torch.float64)
    p = logits.softmax(0)
    (exact,) = torch.autograd.grad(p @ reward, logits, retain_graph=True)

    def expected(credit) -> torch.Tensor:
        surrogate = torch.zeros((), dtype=torch.float64)
        for i in range(3):
            for j in range(3):
                chance = (p[i] * p[j]).detach()
                first, second = credit(reward[[i, j]][None])[0]
                surrogate = surrogate + chance * (first * p[i].log() + second * p[j].log()) / 2
        (gradient,) = torch.autograd.grad(surrogate, logits, retain_graph=True)
        return gradient

    close(expected(leave_one_out), exact)
    close(expected(lambda scores: group_advantages(scores, scale=False)), exact / 2)
