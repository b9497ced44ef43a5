"""KL estimators: exact expectations and exact gradients over a small vocabulary.

Nothing is sampled where an expectation can be written down: with four outcomes the mean of an
estimator is a dot product with p.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import full_kl, kl_estimate

P = torch.tensor([0.5, 0.2, -0.3, -0.8], dtype=torch.float64)
Q = torch.tensor([0.1, 0.4, 0.0, -0.5], dtype=torch.float64)
KL_PQ = 0.0489990921
TRUE_GRADIENT = [0.156608, -0.064473, -0.05735, -0.034785]
FORWARD_KL_GRADIENT = [0.143147, -0.05408, -0.05544, -0.033626]


def moments(kind, p_logits=P, q_logits=Q):
    """Mean and standard deviation of an estimator under p, exactly."""
    logp, logq = p_logits.log_softmax(0), q_logits.log_softmax(0)
    estimate, p = kl_estimate(logp, logq, kind), logp.exp()
    mean = (p * estimate).sum()
    return mean.item(), (p * (estimate - mean).square()).sum().sqrt().item()


@pytest.mark.parametrize(
    ("kind", "mean", "std"),
    [("k1", KL_PQ, 0.321214), ("k2", 0.0527895657, None), ("k3", KL_PQ, 0.028938)],
)
def test_exact_mean_and_spread(kind, mean, std):
    found_mean, found_std = moments(kind)
    assert found_mean == pytest.approx(mean, abs=5e-11)
    if std is not None:
        assert found_std == pytest.approx(std, abs=5e-7)


def test_an_unknown_kind_is_refused():
    with pytest.raises(AssertionError, match="k4"):
        kl_estimate(P, Q, "k4")


def test_k2_is_biased_by_7_74_percent_here():
    assert moments("k2")[0] / KL_PQ - 1 == pytest.approx(0.0774, abs=5e-5)


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6))
def test_k1_and_k3_are_unbiased_for_any_two_policies(seed):
    random = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, 7, generator=random, dtype=torch.float64)
    exact = full_kl(p, q).item()
    assert moments("k1", p, q)[0] == pytest.approx(exact, abs=1e-12)
    assert moments("k3", p, q)[0] == pytest.approx(exact, abs=1e-12)
    logp, logq = p.log_softmax(0), q.log_softmax(0)
    assert (kl_estimate(logp, logq, "k3") >= 0).all()


def test_a_million_samples_see_the_bias_of_k2_and_no_other():
    logp, logq = P.log_softmax(0), Q.log_softmax(0)
    random = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(logp.exp(), 1_000_000, replacement=True, generator=random)
    kl = full_kl(P, Q).item()
    # Four standard errors of a million samples: 1.3e-3 for k1, 1.2e-4 for k3.
    for kind, tolerance in (("k1", 1.3e-3), ("k3", 1.2e-4)):
        estimate = kl_estimate(logp[drawn], logq[drawn], kind)
        assert abs(estimate.mean().item() - kl) < tolerance
    k2 = kl_estimate(logp[drawn], logq[drawn], "k2")
    assert abs(k2.mean().item() - kl) > 4 * k2.std().item() / 1000
    k1 = kl_estimate(logp[drawn], logq[drawn], "k1")
    assert (k1 < 0).double().mean().item() == pytest.approx(0.59, abs=0.005)  # measured 0.593


@pytest.mark.parametrize("mu", [0.1, 1.0])
def test_spread_and_bias_for_two_gaussians_follow_the_closed_form(mu):
    # Schulman's table: spread / KL is 20, 1.42, 1.42 at mu = 0.1 and 2, 1.73, 1.7 at mu = 1.
    spreads = 2 / mu, math.sqrt(2 + mu**2), 2 * math.sqrt(math.expm1(mu**2) - mu**2) / mu**2
    x = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    p = torch.exp(-x.square() / 2)
    p /= p.sum()
    logp, logq, true = -x.square() / 2, -(x - mu).square() / 2, mu**2 / 2
    for kind, spread in zip(("k1", "k2", "k3"), spreads, strict=True):
        estimate = kl_estimate(logp, logq, kind)
        mean = (p * estimate).sum()
        std = (p * (estimate - mean).square()).sum().sqrt()
        assert (std / true).item() == pytest.approx(spread, rel=1e-6)
        bias = mu**2 / 4 if kind == "k2" else 0.0
        assert (mean / true - 1).item() == pytest.approx(bias, abs=1e-9)


def gradient_as_loss(kind):
    """Expected gradient when the estimate itself is minimised on tokens drawn from p."""
    logits = P.clone().requires_grad_()
    logp = logits.log_softmax(0)
    (logp.detach().exp() * kl_estimate(logp, Q.log_softmax(0), kind)).sum().backward()
    return logits.grad.tolist()


def gradient_in_reward(kind):
    """Expected policy gradient when the detached estimate is a negative reward."""
    logits = P.clone().requires_grad_()
    logp = logits.log_softmax(0)
    penalty = kl_estimate(logp, Q.log_softmax(0), kind).detach()
    (logp.detach().exp() * penalty * logp).sum().backward()
    return logits.grad.tolist()


def test_in_the_reward_only_k1_has_the_gradient_of_the_divergence():
    assert gradient_in_reward("k1") == pytest.approx(TRUE_GRADIENT, abs=1e-6)
    assert gradient_in_reward("k3")[0] == pytest.approx(0.013461, abs=1e-6)
    for wrong in ("k2", "k3"):
        assert abs(gradient_in_reward(wrong)[0] - TRUE_GRADIENT[0]) > 0.1


def test_as_a_loss_only_k2_has_the_gradient_of_the_divergence():
    assert gradient_as_loss("k2") == pytest.approx(TRUE_GRADIENT, abs=1e-6)
    assert gradient_as_loss("k1") == pytest.approx([0, 0, 0, 0], abs=1e-12)
    assert gradient_as_loss("k3") == pytest.approx(FORWARD_KL_GRADIENT, abs=1e-6)


def test_k3_as_a_loss_descends_the_other_divergence():
    logits = P.clone().requires_grad_()
    full_kl(Q, logits).backward()
    assert logits.grad.tolist() == pytest.approx(FORWARD_KL_GRADIENT, abs=1e-6)
