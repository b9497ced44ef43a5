"""Likelihoods beyond Bradley-Terry's: weights, ties, labels that are sometimes wrong."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import bradley_terry_loss, noisy_label_loss, rao_kupper_loss

MARGINS = st.floats(-15, 15)
THRESHOLDS = st.floats(0.05, 3)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def one(margin: float) -> torch.Tensor:
    return torch.tensor([margin], dtype=torch.float64)


def ties(margin: float, label: float, threshold: float) -> float:
    return rao_kupper_loss(one(margin), label, threshold=threshold).item()


def test_a_pair_of_weight_three_counts_as_three_pairs():
    margins = torch.tensor([0.5, -1.0], dtype=torch.float64)
    labels = torch.tensor([1.0, 0.3], dtype=torch.float64)
    weighted = bradley_terry_loss(margins, labels, weights=torch.tensor([1.0, 3.0]))
    repeated = bradley_terry_loss(margins[[0, 1, 1, 1]], labels[[0, 1, 1, 1]])
    assert weighted.item() == pytest.approx(repeated.item(), abs=1e-12)


def test_weights_add_up_over_micro_batches():
    margins, labels, weights = torch.rand(3, 6, dtype=torch.float64)
    total = float(weights.sum())
    whole = bradley_terry_loss(margins, labels, weights=weights)
    parts = [
        bradley_terry_loss(
            margins[rows], labels[rows], weights=weights[rows], denominator=total
        ).item()
        for rows in (slice(0, 2), slice(2, 6))
    ]
    assert sum(parts) == pytest.approx(whole.item(), abs=1e-12)


def test_each_pair_has_an_offset_of_its_own():
    offsets = torch.tensor([2.0, 0.0], dtype=torch.float64)
    both = bradley_terry_loss(
        torch.tensor([2.0, 0.0], dtype=torch.float64), offset=offsets, denominator=1
    )
    assert both.item() == pytest.approx(2 * math.log(2), abs=1e-12)


@settings(max_examples=30)
@given(margin=MARGINS, threshold=THRESHOLDS)
def test_win_loss_and_tie_share_all_probability(margin, threshold):
    found = [math.exp(-ties(margin, label, threshold)) for label in (1.0, 0.0, 0.5)]
    assert sum(found) == pytest.approx(1, abs=1e-9)
    assert found[0] == pytest.approx(sigmoid(margin - threshold), abs=1e-12)
    assert found[1] == pytest.approx(sigmoid(-margin - threshold), abs=1e-12)


def test_tie_of_equal_answers_by_hand():
    """With theta = log 2: P(win) = P(loss) = 1 / (1 + 2), so P(tie) = 1/3."""
    assert ties(0.0, 0.5, math.log(2)) == pytest.approx(math.log(3), abs=1e-12)


@settings(max_examples=30)
@given(margin=MARGINS, threshold=THRESHOLDS)
def test_a_tie_pulls_twice_as_hard_as_half_a_vote_for_either(margin, threshold):
    there, here = (one(margin).requires_grad_() for _ in range(2))
    rao_kupper_loss(there, 0.5, threshold=threshold).backward()
    bradley_terry_loss(here, 0.5, offset=threshold).backward()
    assert there.grad.item() == pytest.approx(2 * here.grad.item(), abs=1e-12)
    assert there.grad.item() * margin >= 0


def test_ties_need_a_threshold():
    with pytest.raises(ValueError, match="must be positive"):
        rao_kupper_loss(torch.zeros(1), 0.5, threshold=0.0)


@settings(max_examples=30)
@given(margin=MARGINS, label=st.floats(0, 1))
def test_without_errors_it_is_bradley_terry(margin, label):
    expected = bradley_terry_loss(one(margin), label).item()
    assert noisy_label_loss(one(margin), label, error=0.0).item() == pytest.approx(expected)


@settings(max_examples=30)
@given(true=st.floats(-4, 4), error=st.floats(0.0, 0.45))
def test_the_minimum_is_the_margin_without_errors(true, error):
    """Labels that are 1 with probability (1 - e) s(D) + e s(-D) have their minimum at D."""
    label = (1 - error) * sigmoid(true) + error * sigmoid(-true)
    margin = one(true).requires_grad_()
    noisy_label_loss(margin, label, error=error).backward()
    assert margin.grad.item() == pytest.approx(0, abs=1e-9)


def test_a_contradicted_certainty_pulls_less_and_less():
    """-d log q / d margin at q = .1 + .8 s: at a margin of -8 nearly 0, where BT's pull is 1."""
    margin = one(-8.0).requires_grad_()
    noisy_label_loss(margin, 1.0, error=0.1).backward()
    s = sigmoid(-8.0)
    assert margin.grad.item() == pytest.approx(-0.8 * s * (1 - s) / (0.1 + 0.8 * s), abs=1e-12)


def test_errors_differ_between_annotators_and_zero_is_one_of_them():
    margins = torch.tensor([0.7, 0.7], dtype=torch.float64, requires_grad=True)
    errors = torch.tensor([0.0, 0.2], dtype=torch.float64)
    loss = noisy_label_loss(margins, error=errors, weights=torch.tensor([1.0, 2.0]))
    expected = -math.log(sigmoid(0.7)) - 2 * math.log(0.8 * sigmoid(0.7) + 0.2 * sigmoid(-0.7))
    assert loss.item() == pytest.approx(expected / 3, abs=1e-12)
    loss.backward()
    assert margins.grad.isfinite().all()


@pytest.mark.parametrize("error", [-0.1, 0.5])
def test_an_annotator_who_is_wrong_every_second_time_is_refused(error):
    with pytest.raises(ValueError, match="wrong labels"):
        noisy_label_loss(torch.zeros(1), error=error)


def test_a_quarter_of_wrong_labels_shrinks_plain_margins_and_not_these():
    """A linear reward of 4000 pairs, a quarter of the labels flipped.

    The slope on the true margins must come back within 15 %, and likelihood and calibration on
    clean labels must beat those of the plain loss.
    """
    random = torch.Generator().manual_seed(0)
    truth = torch.randn(5, generator=random)
    features = torch.randn(6000, 5, generator=random)
    clean = (torch.rand(6000, generator=random) < (features @ truth).sigmoid()).float()
    flipped = torch.rand(6000, generator=random) < 0.25
    labels = torch.where(flipped, 1 - clean, clean)[:4000]

    def slope_and_loss(loss) -> tuple[float, float]:
        weights = torch.zeros(5, requires_grad=True)
        for _ in range(300):
            weights.data -= torch.autograd.grad(loss(features[:4000] @ weights), weights)[0]
        found, true = features[4000:] @ weights.detach(), features[4000:] @ truth
        slope = float((found * true).sum() / (true * true).sum())
        return slope, float(bradley_terry_loss(found, clean[4000:]))

    plain = slope_and_loss(lambda margin: bradley_terry_loss(margin, labels))
    aware = slope_and_loss(lambda margin: noisy_label_loss(margin, labels, error=0.25))
    assert abs(aware[0] - 1) < 0.15
    assert plain[0] < 0.6
    assert aware[1] < plain[1] - 0.02
