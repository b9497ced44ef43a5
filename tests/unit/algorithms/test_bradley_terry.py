"""The preference loss: known values, symmetries, soft labels, and learning under noise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import bradley_terry_loss, pairwise_accuracy

MARGINS = st.floats(-20, 20)
PROBABILITIES = st.floats(0, 1)


def loss(margin, label=1.0, **options):
    return bradley_terry_loss(torch.tensor([margin], dtype=torch.float64), label, **options).item()


@pytest.mark.parametrize(
    ("margin", "expected"), [(0.0, 0.693147), (2.0, 0.126928), (-2.0, 2.126928)]
)
def test_known_values(margin, expected):
    assert loss(margin) == pytest.approx(expected, abs=5e-7)


@settings(max_examples=30)
@given(margin=MARGINS)
def test_gradient_is_minus_the_probability_of_the_other_answer(margin):
    d = torch.tensor([margin], dtype=torch.float64, requires_grad=True)
    bradley_terry_loss(d).backward()
    assert d.grad.item() == pytest.approx(-1 / (1 + math.exp(margin)), abs=1e-12)


@settings(max_examples=30)
@given(margin=MARGINS, label=PROBABILITIES, smoothing=st.floats(0, 0.49))
def test_swapping_the_pair_changes_nothing(margin, label, smoothing):
    there = loss(margin, label, smoothing=smoothing, offset=0.3)
    back = loss(-margin, 1 - label, smoothing=smoothing, offset=0.3)
    assert there == pytest.approx(back, abs=1e-12)


def test_swapping_the_answers_alone_negates_the_gradient_at_a_tie():
    scores = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    gradients = [
        torch.autograd.grad(bradley_terry_loss(scores[a] - scores[b]), scores)[0]
        for a, b in ((0, 1), (1, 0))
    ]
    assert torch.equal(gradients[0], -gradients[1])
    assert gradients[0].tolist() == [-0.5, 0.5]


def test_a_constant_added_to_all_scores_changes_nothing():
    chosen, rejected = torch.randn(2, 8, dtype=torch.float64)
    plain = bradley_terry_loss(chosen - rejected)
    shifted = bradley_terry_loss((chosen + 100) - (rejected + 100))
    assert shifted.item() == pytest.approx(plain.item(), abs=1e-12)


@settings(max_examples=30)
@given(p=st.floats(0.01, 0.99))
def test_a_soft_label_is_learned_as_its_log_odds(p):
    margin = torch.tensor([math.log(p / (1 - p))], dtype=torch.float64, requires_grad=True)
    bradley_terry_loss(margin, torch.tensor([p], dtype=torch.float64)).backward()
    assert margin.grad.item() == pytest.approx(0, abs=1e-12)


def test_smoothing_bounds_the_margin_a_certain_label_asks_for():
    margin = torch.tensor([math.log(9.0)], dtype=torch.float64, requires_grad=True)
    bradley_terry_loss(margin, 1.0, smoothing=0.1).backward()
    assert margin.grad.item() == pytest.approx(0, abs=1e-12)
    assert loss(50.0, smoothing=0.1) > loss(3.0, smoothing=0.1)
    assert loss(50.0) < loss(3.0)


def test_an_offset_asks_the_winner_to_win_by_that_much():
    assert loss(2.0, offset=2.0) == pytest.approx(math.log(2))
    assert loss(-2.0, 0.0, offset=2.0) == pytest.approx(math.log(2))


def test_the_mean_is_over_the_pairs_of_the_step():
    margins, labels = torch.randn(2, 6, dtype=torch.float64)
    labels = labels.sigmoid()
    whole = bradley_terry_loss(margins, labels).item()
    parts = [(slice(0, 1), 1), (slice(1, 6), 5)]
    split = sum(
        bradley_terry_loss(margins[rows], labels[rows], denominator=6).item() for rows, _ in parts
    )
    means = sum(bradley_terry_loss(margins[rows], labels[rows]).item() for rows, _ in parts) / 2
    assert split == pytest.approx(whole, abs=1e-12)
    assert abs(means - whole) > 1e-3


def test_vast_margins_stay_finite():
    margin = torch.tensor([-1e4, 1e4], requires_grad=True)
    total = bradley_terry_loss(margin)
    total.backward()
    assert total.item() == pytest.approx(5e3)
    assert margin.grad.isfinite().all()


@pytest.mark.parametrize(
    "wrong", [{"label": 1.5}, {"label": -1.0}, {"smoothing": 0.5}, {"smoothing": -0.1}]
)
def test_labels_are_probabilities(wrong):
    with pytest.raises(ValueError, match=r"probability|smoothing"):
        bradley_terry_loss(torch.zeros(1), **wrong)


def test_a_tie_is_worth_half_a_point():
    margins = torch.tensor([1.0, -1.0, 0.0])
    assert pairwise_accuracy(margins).tolist() == [1, 0, 0.5]
    assert pairwise_accuracy(margins, torch.tensor([0.0, 0.2, 1.0])).tolist() == [0, 1, 0.5]
    assert pairwise_accuracy(margins, 0.5).tolist() == [0.5] * 3


def test_a_linear_reward_is_recovered_through_a_fifth_of_wrong_labels():
    random = torch.Generator().manual_seed(0)
    truth = torch.randn(10, generator=random)
    features = torch.randn(6000, 10, generator=random)  # of the chosen minus the rejected
    right = (features @ truth > 0).float()
    flipped = torch.rand(6000, generator=random) < 0.2
    labels = torch.where(flipped, 1 - right, right)
    weights = torch.zeros(10, requires_grad=True)
    for _ in range(100):
        fit = bradley_terry_loss(features[:4000] @ weights, labels[:4000])
        weights.data -= 2 * torch.autograd.grad(fit, weights)[0]
    held_out = features[4000:] @ weights.detach()
    assert 0.75 <= pairwise_accuracy(held_out, labels[4000:]).mean() <= 0.85
    assert pairwise_accuracy(held_out, right[4000:]).mean() > 0.95
