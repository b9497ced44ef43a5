"""Denominators: which mean a sum becomes, and that its parts add up."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import loss_denominator, masked_mean, ppo_policy_loss, ppo_value_loss

SEEDS = st.integers(0, 10**6)
KINDS = ("token_mean", "sequence_mean", "sequence_sum", "fixed_length")
# Rows of 2, 3 and 1 tokens; 22 in all.
LOSSES = torch.tensor([[1.0, 2, 0], [3, 4, 5], [7, 0, 0]], dtype=torch.float64)
MASK = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)


def denominator(mask, kind, **options):
    longest = {"max_length": 3} if kind == "fixed_length" else {}
    return loss_denominator(mask, kind, **longest, **options)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("token_mean", 22 / 6),
        ("sequence_mean", (3 / 2 + 4 + 7) / 3),
        ("sequence_sum", 22 / 3),
        ("fixed_length", 22 / 9),
    ],
)
def test_each_kind_is_the_mean_it_names(kind, expected):
    assert masked_mean(LOSSES, MASK, denominator(MASK, kind)).item() == pytest.approx(
        expected, abs=1e-12
    )


def test_micro_batches_need_the_denominator_of_the_step():
    parts = [slice(0, 2), slice(2, 3)]
    exact = sum(masked_mean(LOSSES[rows], MASK[rows], 6) for rows in parts)
    mean_of_means = sum(masked_mean(LOSSES[rows], MASK[rows]) for rows in parts) / 2
    assert exact.item() == pytest.approx(22 / 6, abs=1e-12)
    assert mean_of_means.item() == pytest.approx(5.0, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_rows_do_not_count(kind):
    padded = torch.cat([MASK, torch.zeros(2, 3, dtype=torch.bool)])
    losses = torch.cat([LOSSES, torch.full((2, 3), torch.nan, dtype=torch.float64)])
    alone = masked_mean(LOSSES, MASK, denominator(MASK, kind))
    assert masked_mean(losses, padded, denominator(padded, kind)).item() == alone.item()


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_have_the_denominator_of_one(kind, on_ranks):
    parts = on_ranks(
        [
            lambda all_sum: denominator(MASK[:1], kind, all_sum=all_sum),
            lambda all_sum: denominator(MASK[1:], kind, all_sum=all_sum),
        ]
    )
    assert torch.equal(torch.cat(parts), denominator(MASK, kind))


@pytest.mark.parametrize(("kind", "length"), [("fixed_length", None), ("token_mean", 3)])
def test_max_length_belongs_to_fixed_length(kind, length):
    with pytest.raises(ValueError, match="max_length"):
        loss_denominator(MASK, kind, max_length=length)


def test_an_unknown_kind_is_refused():
    with pytest.raises(AssertionError, match="batch_mean"):
        loss_denominator(MASK, "batch_mean")


def gradient(loss_of, parameter, rows, chunks):
    parameter.grad = None
    for part in torch.arange(rows).split(max(1, rows // chunks)):
        loss_of(part).backward()
    return parameter.grad.clone()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(seed=SEEDS)
def test_any_split_into_micro_batches_gives_the_same_gradient(kind, seed, ragged):
    batch = ragged(seed)
    counts = denominator(batch.mask, kind)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    def policy(rows):
        part = batch.map(lambda x: x[rows])
        new, *rest = part.policy()
        return ppo_policy_loss(weight * new, *rest, clip=0.2, denominator=counts[rows]).loss

    def critic(rows):
        part = batch.map(lambda x: x[rows])
        new, *rest = part.critic()
        return ppo_value_loss(weight * new, *rest, clip=0.2, denominator=counts[rows]).loss

    for loss_of in (policy, critic):
        whole = gradient(loss_of, weight, len(batch.mask), 1)
        for chunks in (2, 4, 8):
            split = gradient(loss_of, weight, len(batch.mask), chunks)
            assert torch.allclose(split, whole, rtol=1e-12, atol=1e-12)
