"""Scores and divergences become rewards on the right tokens, with the right sign."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import (
    gae,
    kl_estimate,
    length_penalty,
    masked_whiten,
    overlong_penalty,
    shape_rewards,
    truncation_score,
)

SEEDS = st.integers(0, 10**6)
LOGPROBS = torch.tensor([[-1.0, -2.0, -0.5]], dtype=torch.float64)
REFERENCE = torch.tensor([[-1.2, -1.5, -0.5]], dtype=torch.float64)
SCORE = torch.tensor([2.0], dtype=torch.float64)
WRITTEN = torch.ones(1, 3, dtype=torch.bool)


def test_score_lands_on_the_last_written_token():
    rewards = shape_rewards(SCORE, kl_estimate(LOGPROBS, REFERENCE), WRITTEN, 0.1)
    assert rewards.tolist()[0] == pytest.approx([-0.02, 0.05, 2.0], abs=1e-12)
    values = torch.tensor([[1.0, 1.2, 1.5]], dtype=torch.float64)
    advantages, returns = gae(rewards, values, WRITTEN, gamma=1.0, lam=0.95)
    assert advantages.tolist()[0] == pytest.approx([0.96375, 0.825, 0.5], abs=1e-12)
    assert returns.tolist()[0] == pytest.approx([1.96375, 2.025, 2.0], abs=1e-12)


def test_a_score_one_position_later_gives_other_advantages():
    # The control: the score on the padding after the stop token, whose value is learned as 0.
    rewards = torch.tensor([[-0.02, 0.05, 0.0, 2.0]], dtype=torch.float64)
    values = torch.tensor([[1.0, 1.2, 1.5, 0.0]], dtype=torch.float64)
    late = torch.ones(1, 4, dtype=torch.bool)
    advantages, _ = gae(rewards, values, late, gamma=1.0, lam=0.95)
    assert abs(advantages[0, 0].item() - 0.96375) > 0.05


def test_being_surer_than_the_reference_costs_and_swapping_them_flips_the_sign():
    surer, reference = torch.tensor([[-0.1]]), torch.tensor([[-1.0]])
    zero, mask = torch.zeros(1), torch.ones(1, 1, dtype=torch.bool)
    assert shape_rewards(zero, kl_estimate(surer, reference), mask, 0.5).item() < 0
    assert shape_rewards(zero, kl_estimate(reference, surer), mask, 0.5).item() > 0
    swapped = shape_rewards(SCORE, kl_estimate(REFERENCE, LOGPROBS), WRITTEN, 0.1)
    assert swapped[0, 0].item() == pytest.approx(0.02)


@settings(max_examples=50)
@given(seed=SEEDS, beta=st.floats(0, 10))
def test_rewards_of_a_row_add_up_to_score_minus_beta_times_kl(seed, beta, ragged, garbage):
    batch = ragged(seed)
    scores = batch.values[:, 0].clone()
    scores[~batch.mask.any(1)] = torch.nan
    kl = kl_estimate(batch.logprobs, batch.ref_logprobs)
    rewards = shape_rewards(scores, garbage(kl, batch.mask), batch.mask, beta)
    for i, written in enumerate(batch.mask):
        steps = written.nonzero().flatten().tolist()
        total = sum(kl[i, t].item() for t in steps)
        expected = scores[i].item() - beta * total if steps else 0.0
        assert rewards[i].sum().item() == pytest.approx(expected, abs=1e-12)
        if steps:
            assert rewards[i, steps[-1]].item() == pytest.approx(
                scores[i].item() - beta * kl[i, steps[-1]].item(), abs=1e-12
            )
    assert rewards[~batch.mask].abs().sum() == 0


def test_rewards_carry_no_gradient():
    logprobs = LOGPROBS.clone().requires_grad_()
    rewards = shape_rewards(SCORE, kl_estimate(logprobs, REFERENCE), WRITTEN, 0.1)
    assert not rewards.requires_grad


@pytest.mark.parametrize("score", [torch.nan, torch.inf])
def test_a_score_that_is_no_number_counts_only_where_nothing_was_written(score):
    scores, kl = torch.tensor([1.0, score]), torch.zeros(2, 2)
    hidden = torch.tensor([[True, True], [False, False]])
    assert shape_rewards(scores, kl, hidden, 0.1).tolist() == [[0, 1], [0, 0]]
    with pytest.raises(ValueError, match=r"rows \[1\]"):
        shape_rewards(scores, kl, torch.ones(2, 2, dtype=torch.bool), 0.1)


def test_failed_samples_leave_the_update_as_if_they_were_not_there():
    # Eight rows of which two failed, against the six alone.
    random = torch.Generator().manual_seed(3)
    kl, values = torch.randn(2, 8, 5, generator=random, dtype=torch.float64)
    scores = torch.randn(8, generator=random, dtype=torch.float64)
    mask = torch.rand(8, 5, generator=random) < 0.7
    ok = torch.tensor([1, 1, 0, 1, 1, 0, 1, 1], dtype=torch.bool)
    scores[~ok] = torch.nan

    def whitened(rows, seen):
        rewards = shape_rewards(scores[rows], kl[rows], seen, 0.1)
        advantages, _ = gae(rewards, values[rows], seen, gamma=1.0, lam=0.95)
        return masked_whiten(advantages, seen)

    everything = whitened(torch.arange(8), mask & ok[:, None])
    alone = whitened(ok.nonzero().flatten(), mask[ok])
    assert torch.allclose(everything[ok], alone, rtol=0, atol=1e-12)
    assert everything[~ok].abs().sum() == 0


@pytest.mark.parametrize(
    ("kind", "value", "expected"), [("replace", -1.0, [3, -1]), ("subtract", 1.0, [3, 2])]
)
def test_a_truncated_completion_is_punished_in_the_way_that_was_named(kind, value, expected):
    scores, truncated = torch.tensor([3.0, 3.0]), torch.tensor([False, True])
    assert truncation_score(scores, truncated, kind=kind, value=value).tolist() == expected


def test_an_unknown_punishment_is_refused():
    with pytest.raises(AssertionError, match="ignore"):
        truncation_score(torch.zeros(1), torch.ones(1, dtype=torch.bool), kind="ignore")


def test_length_costs_only_above_the_threshold():
    penalty = length_penalty(torch.tensor([0, 19, 20, 21, 30]), coefficient=0.1, threshold=20)
    assert penalty.tolist() == pytest.approx([0, 0, 0, -0.1, -1.0])
    with pytest.raises(ValueError, match="reward length"):
        length_penalty(torch.tensor([1]), coefficient=-0.1, threshold=20)


def test_overlong_completions_pay_more_and_more_up_to_the_limit():
    """DAPO's figures, scaled down: 20 tokens at most, the last 4 of them cost something."""
    lengths = torch.tensor([1, 15, 16, 17, 19, 20, 25])
    found = overlong_penalty(lengths, longest=20, buffer=4, penalty=2.0)
    assert found.tolist() == pytest.approx([0, 0, 0, -0.5, -1.5, -2.0, -2.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffer": 0}, r"must lie in \[1, 20\]"),
        ({"buffer": 21}, r"must lie in \[1, 20\]"),
        ({"buffer": 4, "penalty": -1.0}, "would reward length"),
    ],
)
def test_overlong_penalty_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        overlong_penalty(torch.tensor([1]), longest=20, **options)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="scores"):
        shape_rewards(torch.zeros(2), torch.zeros(1, 3), WRITTEN, 0.1)


# What turns of a conversation earned on the way.

TWO_TURNS = torch.tensor([[0, 1, 1, 0, 0, 1, 1, 0]], dtype=torch.bool)


def test_a_turn_is_paid_on_its_last_token_and_the_rest_of_the_score_at_the_end():
    earned = torch.tensor([[0, 0, 2.0, 0, 0, 0, 0, 0]])
    kl = torch.full((1, 8), 0.5)
    rewards = shape_rewards(torch.tensor([5.0]), kl, TWO_TURNS, 0.2, earned=earned)
    assert rewards.tolist()[0] == pytest.approx([0, -0.1, 1.9, 0, 0, -0.1, 2.9, 0], abs=1e-6)


def test_paying_turns_on_the_way_leaves_the_total_as_it_is():
    earned = torch.tensor([[0, 0, -3.5, 0, 0, 0, 0, 0]], dtype=torch.float64)
    kl = torch.randn(1, 8, dtype=torch.float64)
    at_the_end = shape_rewards(SCORE, kl, TWO_TURNS, 0.3)
    on_the_way = shape_rewards(SCORE, kl, TWO_TURNS, 0.3, earned=earned)
    assert on_the_way.sum().item() == pytest.approx(at_the_end.sum().item(), abs=1e-12)
    assert not torch.equal(on_the_way, at_the_end)


def test_nothing_can_be_earned_by_what_the_policy_only_read():
    earned = torch.tensor([[0, 0, 0, 2.0, 0, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"2 was earned at \[0, 3\]"):
        shape_rewards(torch.tensor([5.0]), torch.zeros(1, 8), TWO_TURNS, 0.2, earned=earned)


def test_nan_between_two_turns_changes_no_reward():
    earned = torch.tensor([[0, 0, 2.0, 0, 0, 0, 0, 0]])
    kl = torch.rand(1, 8)
    clean = shape_rewards(torch.tensor([5.0]), kl, TWO_TURNS, 0.2, earned=earned)
    spoilt = [torch.where(TWO_TURNS, tensor, torch.nan) for tensor in (kl, earned)]
    rewards = shape_rewards(torch.tensor([5.0]), spoilt[0], TWO_TURNS, 0.2, earned=spoilt[1])
    assert torch.equal(rewards, clean)


def test_advantages_of_two_turns_are_those_of_their_tokens_side_by_side():
    # Schulman et al. 2016 eq. 16 on the four written tokens alone, by hand: lambda 0.95, values
    # .1 .2 | .3 .4, rewards 0 2 | 0 3 of a score of 5, of which 2 came with the first turn.
    earned = torch.tensor([[0, 0, 2.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    scores, kl = torch.tensor([5.0], dtype=torch.float64), torch.zeros(1, 8, dtype=torch.float64)
    values = torch.tensor([[7, 0.1, 0.2, 9, 9, 0.3, 0.4, 7]], dtype=torch.float64)
    rewards = shape_rewards(scores, kl, TWO_TURNS, 0.0, earned=earned)
    advantages, returns = gae(rewards, values, TWO_TURNS, gamma=1.0, lam=0.95)
    last = 3 - 0.4
    third = (0.4 - 0.3) + 0.95 * last
    second = (2 + 0.3 - 0.2) + 0.95 * third
    first = (0.2 - 0.1) + 0.95 * second
    assert advantages[0].tolist() == pytest.approx(
        [0, first, second, 0, 0, third, last, 0], abs=1e-12
    )
    assert returns[0, 2].item() == pytest.approx(second + 0.2, abs=1e-12)
