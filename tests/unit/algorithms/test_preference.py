"""Direct preference optimisation: numbers by hand, symmetries, closed forms of the optimum."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import bradley_terry_loss, dpo_loss, implicit_rewards

KINDS = ("sigmoid", "hinge", "ipo")
LOGPROBS = torch.tensor([[-4.0, -6.0], [-3.0, -2.5]], dtype=torch.float64)
REFERENCE = torch.tensor([[-5.0, -5.5], [-3.5, -2.0]], dtype=torch.float64)
"""log pi / pi_ref is 1 and -0.5 in the first pair, 0.5 and -0.5 in the second."""


def loss(logprobs=LOGPROBS, reference=REFERENCE, label=1.0, **options) -> float:
    return dpo_loss(logprobs, reference, label, **{"beta": 0.2, **options}).loss.item()


def with_margin(margin: float, beta: float = 1.0) -> torch.Tensor:
    """One pair whose implicit rewards differ by `margin` from a reference of zeros."""
    return torch.tensor([[margin / beta, 0.0]], dtype=torch.float64, requires_grad=True)


def test_numbers_by_hand():
    """Margins 0.2 x 1.5 = 0.3 and 0.2 x 1 = 0.2."""
    assert loss() == pytest.approx((math.log1p(math.exp(-0.3)) + math.log1p(math.exp(-0.2))) / 2)
    assert loss(kind="hinge") == pytest.approx((0.7 + 0.8) / 2)
    # 1.5 and 1 nats, against 1 / (2 x 0.2) = 2.5.
    assert loss(kind="ipo") == pytest.approx((1.0**2 + 1.5**2) / 2)


def test_metrics_by_hand():
    label = torch.tensor([1.0, 0.2], dtype=torch.float64)
    metrics = dpo_loss(LOGPROBS, REFERENCE, label, beta=0.2).metrics
    found = {name.removeprefix("dpo/"): value.item() for name, value in metrics.items()}
    assert found == pytest.approx(
        {
            "accuracy": 0.5,
            "margin": (0.3 - 0.2) / 2,
            "chosen_reward": (0.2 - 0.1) / 2,
            "rejected_reward": (-0.1 + 0.1) / 2,
            "chosen_logprob": (-4.0 - 2.5) / 2,
            "rejected_logprob": (-6.0 - 3.0) / 2,
            "kl": (-0.25 + 0.0) / 2,
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_swapping_the_answers_negates_the_margin_and_with_the_label_changes_nothing(kind):
    swapped, reference = LOGPROBS.flip(1), REFERENCE.flip(1)
    label = torch.tensor([0.9, 0.3], dtype=torch.float64)
    before = dpo_loss(LOGPROBS, REFERENCE, label, beta=0.2, kind=kind)
    after = dpo_loss(swapped, reference, 1 - label, beta=0.2, kind=kind)
    assert after.loss.item() == pytest.approx(before.loss.item())
    assert {k: v.item() for k, v in after.metrics.items()} == pytest.approx(
        {k: v.item() for k, v in before.metrics.items()}
    )
    margins = [
        dpo_loss(x, y, 1.0, beta=0.2, kind=kind).metrics["dpo/margin"].item()
        for x, y in ((LOGPROBS, REFERENCE), (swapped, reference))
    ]
    assert margins[0] == pytest.approx(-margins[1])
    assert margins[0] > 0.1


def test_policy_equal_to_its_reference_has_loss_log_2():
    assert loss(REFERENCE) == pytest.approx(math.log(2))
    assert loss(REFERENCE, label=0.3) == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", KINDS)
def test_what_both_answers_have_in_common_cancels(kind):
    shift = torch.tensor([[3.0], [-40.0]], dtype=torch.float64)
    assert loss(LOGPROBS + shift, kind=kind) == pytest.approx(loss(kind=kind), abs=1e-12)
    assert loss(LOGPROBS, REFERENCE + shift, kind=kind) == pytest.approx(loss(kind=kind), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(p=st.floats(0, 1), s=st.floats(0, 0.49))
def test_smoothing_is_the_mixture_of_both_labels(kind, p, s):
    first, second = loss(label=1.0, kind=kind), loss(label=0.0, kind=kind)
    mixed = p * (1 - s) + (1 - p) * s
    expected = mixed * first + (1 - mixed) * second
    assert loss(label=p, smoothing=s, kind=kind) == pytest.approx(expected, abs=1e-12)


def test_gradient_is_that_of_the_paper():
    """Rafailov et al. 2023, section 4: beta sigma(-margin) (grad log pi_w - grad log pi_l)."""
    logprobs = LOGPROBS.clone().requires_grad_(True)
    dpo_loss(logprobs, REFERENCE, beta=0.2, denominator=1).loss.backward()
    for i, margin in enumerate((0.3, 0.2)):
        weight = 0.2 / (1 + math.exp(margin))
        assert logprobs.grad[i].tolist() == pytest.approx([-weight, weight])


@pytest.mark.parametrize("p", [1.0, 0.75, 0.5, 0.1])
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_ipo_asks_for_a_finite_margin(beta, p):
    """log pi / pi_ref differ by (p - 1/2) / beta at the minimum: 1 / (2 beta) for a sure label."""
    nats = (p - 0.5) / beta
    logprobs = torch.tensor([[nats, 0.0]], dtype=torch.float64, requires_grad=True)
    reference = torch.zeros(1, 2, dtype=torch.float64)
    dpo_loss(logprobs, reference, p, beta=beta, kind="ipo").loss.backward()
    assert logprobs.grad.abs().max().item() == pytest.approx(0, abs=1e-12)
    around = [loss(with_margin(nats + d), reference, p, beta=beta, kind="ipo") for d in (-0.1, 0.1)]
    assert min(around) > loss(logprobs, reference, p, beta=beta, kind="ipo")


def test_soft_label_and_smoothing_ask_for_their_log_odds():
    reference = torch.zeros(1, 2, dtype=torch.float64)
    for label, smoothing, odds in ((0.8, 0.0, 4.0), (1.0, 0.2, 4.0), (0.0, 0.1, 1 / 9)):
        logprobs = with_margin(math.log(odds), 0.5)
        dpo_loss(logprobs, reference, label, beta=0.5, smoothing=smoothing).loss.backward()
        assert logprobs.grad.abs().max().item() == pytest.approx(0, abs=1e-12)


def test_hinge_is_silent_beyond_its_margin():
    reference = torch.zeros(1, 2, dtype=torch.float64)
    for margin, slope in ((0.99, 1.0), (1.01, 0.0)):
        logprobs = with_margin(margin)
        dpo_loss(logprobs, reference, beta=1.0, kind="hinge").loss.backward()
        assert logprobs.grad.tolist() == [[-slope, slope]]


def test_target_margin_has_to_be_won_by():
    reference = torch.zeros(1, 2, dtype=torch.float64)
    assert loss(with_margin(1.5), reference, beta=1.0, target_margin=1.5) == pytest.approx(
        math.log(2)
    )
    assert loss(
        with_margin(1.5), reference, beta=1.0, target_margin=1.5, kind="hinge"
    ) == pytest.approx(1.0)


def test_length_normalised_loss_is_that_of_mean_logprobs():
    lengths = torch.tensor([[4.0, 2.0], [10.0, 5.0]], dtype=torch.float64)
    rewards = implicit_rewards(LOGPROBS, REFERENCE, beta=0.2, lengths=lengths)
    assert rewards[0].tolist() == pytest.approx([0.2 * 1.0 / 4, 0.2 * -0.5 / 2])
    assert loss(lengths=lengths) == pytest.approx(loss(LOGPROBS / lengths, REFERENCE / lengths))


def test_simpo_is_the_length_normalised_loss_without_reference():
    """-log sigma(beta / |w| log pi(w) - beta / |l| log pi(l) - gamma), one pair by hand."""
    lengths = torch.tensor([[4.0, 2.0]], dtype=torch.float64)
    found = loss(LOGPROBS[:1], torch.zeros(1, 2).double(), lengths=lengths, target_margin=0.1)
    margin = 0.2 / 4 * -4.0 - 0.2 / 2 * -6.0 - 0.1
    assert found == pytest.approx(math.log1p(math.exp(-margin)))


def test_sigmoid_is_bradley_terry_on_the_implicit_rewards():
    label = torch.tensor([0.9, 0.3], dtype=torch.float64)
    rewards = 0.2 * (LOGPROBS - REFERENCE)
    expected = bradley_terry_loss(rewards[:, 0] - rewards[:, 1], label, smoothing=0.1)
    assert loss(label=label, smoothing=0.1) == pytest.approx(expected.item())


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_add_up(kind):
    label = torch.tensor([0.9, 0.3], dtype=torch.float64)
    whole = dpo_loss(LOGPROBS, REFERENCE, label, beta=0.2, kind=kind)
    parts = [
        dpo_loss(
            LOGPROBS[i : i + 1],
            REFERENCE[i : i + 1],
            label[i : i + 1],
            beta=0.2,
            kind=kind,
            denominator=2,
        )
        for i in range(2)
    ]
    assert sum(part.loss.item() for part in parts) == pytest.approx(whole.loss.item())
    for name, value in whole.metrics.items():
        assert sum(part.metrics[name].item() for part in parts) == pytest.approx(value.item())


def test_gradient_reaches_the_policy_alone():
    reference = REFERENCE.clone().requires_grad_(True)
    output = dpo_loss(LOGPROBS.clone().requires_grad_(True), reference, beta=0.2)
    output.loss.backward()
    assert reference.grad is None
    assert not any(value.requires_grad for value in output.metrics.values())


def fitted(reference, label, *, beta: float, kind: str) -> torch.Tensor:
    """The policy over a handful of answers that minimises the loss over all their pairs."""
    count = len(reference)
    pairs = torch.tensor([(i, j) for i in range(count) for j in range(i)])
    logits = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        found = dpo_loss(
            logits.log_softmax(0)[pairs],
            reference.log()[pairs],
            label[pairs[:, 0], pairs[:, 1]],
            beta=beta,
            kind=kind,
        ).loss
        found.backward()
        return found

    optimizer.step(closure)
    return logits.detach().softmax(0)


@pytest.mark.parametrize("rewards", [[1.0, -0.5], [0.3, -1.0, 2.0, 0.0]])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_optimum_is_the_reference_tilted_by_the_reward_that_made_the_labels(rewards, beta):
    """pi* = pi_ref exp(r / beta) / Z, though r itself is never shown."""
    reward = torch.tensor(rewards, dtype=torch.float64)
    reference = torch.linspace(1, 2, len(reward), dtype=torch.float64)
    reference = reference / reference.sum()
    label = torch.sigmoid(reward[:, None] - reward[None, :])
    found = fitted(reference, label, beta=beta, kind="sigmoid")
    tilted = reference * (reward / beta).exp()
    assert found.tolist() == pytest.approx((tilted / tilted.sum()).tolist(), abs=1e-5)
    assert (found - reference).abs().max() > 0.05


def test_optimum_of_ipo_is_the_reference_tilted_by_the_win_rate():
    """Azar et al. 2023, eq. 6 and 10: pi* = pi_ref exp(P(y beats a uniform answer) / beta) / Z."""
    wins = torch.tensor([[0.5, 0.9, 0.8], [0.1, 0.5, 0.6], [0.2, 0.4, 0.5]], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    tilted = reference * ((wins.mean(1) - 0.5) / 0.5).exp()
    found = fitted(reference, wins, beta=0.5, kind="ipo")
    assert found.tolist() == pytest.approx((tilted / tilted.sum()).tolist(), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "wrong",
    [{"beta": 0.0}, {"label": 1.5}, {"smoothing": 0.5}, {"smoothing": -0.1}],
)
def test_numbers_out_of_range_are_refused(kind, wrong):
    with pytest.raises(ValueError, match=r"beta|probability|smoothing"):
        loss(kind=kind, **wrong)


def test_ipo_takes_no_second_target():
    with pytest.raises(ValueError, match=r"target_margin 0\.5"):
        loss(kind="ipo", target_margin=0.5)


def test_unknown_loss_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="one of sigmoid, hinge, ipo, found 'dpo'"):
        loss(kind="dpo")


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"ref_logprobs \(1, 2\)"):
        loss(LOGPROBS, REFERENCE[:1])
    with pytest.raises(ValueError, match=r"lengths \(2,\)"):
        loss(lengths=torch.ones(2))
