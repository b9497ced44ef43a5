"""Log-probabilities, entropy and full KL against torch.distributions and closed forms."""

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from tutelage.algorithms import entropy, full_kl, logprobs_and_entropy, token_logprobs

P = torch.tensor([0.5, 0.2, -0.3, -0.8], dtype=torch.float64)
Q = torch.tensor([0.1, 0.4, 0.0, -0.5], dtype=torch.float64)


def test_logprobs_are_those_of_the_categorical_distribution():
    logits = 3 * torch.randn(2, 5, 11)
    tokens = torch.randint(0, 11, (2, 5))
    expected = Categorical(logits=logits).log_prob(tokens)
    assert torch.allclose(token_logprobs(logits, tokens), expected, rtol=0, atol=1e-6)


def test_temperature_divides_the_logits():
    logits, tokens = torch.randn(2, 5, 11), torch.randint(0, 11, (2, 5))
    warm = token_logprobs(logits, tokens, temperature=0.7)
    expected = Categorical(logits=logits / 0.7).log_prob(tokens)
    assert torch.allclose(warm, expected, rtol=0, atol=1e-6)
    assert (warm - token_logprobs(logits, tokens)).abs().max() > 0.1


def test_bf16_logits_are_normalised_in_single_precision():
    logits = (3 * torch.randn(4, 1000)).bfloat16()
    tokens = torch.randint(0, 1000, (4,))
    found = token_logprobs(logits, tokens)
    assert found.dtype == torch.float32
    expected = Categorical(logits=logits.float()).log_prob(tokens)
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    in_bf16 = logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1).float()
    assert (in_bf16 - expected).abs().max() > 1e-3


def test_uniform_over_8_has_entropy_ln_8():
    assert entropy(torch.zeros(8, dtype=torch.float64)).item() == pytest.approx(math.log(8))
    assert math.log(8) == pytest.approx(2.0794415, abs=5e-8)


def test_descending_on_minus_entropy_flattens_the_distribution():
    logits = torch.tensor([2.0, 0.0], requires_grad=True)
    (-entropy(logits)).backward()
    step = logits.detach() - 0.1 * logits.grad
    assert step[0] < 2 < 2 + step[1]


def test_full_kl_is_exact_in_both_directions():
    assert full_kl(P, Q).item() == pytest.approx(0.0489990921, abs=5e-11)
    assert full_kl(Q, P).item() == pytest.approx(0.0457955371, abs=5e-11)
    expected = kl_divergence(Categorical(logits=P), Categorical(logits=Q))
    assert full_kl(P, Q).item() == pytest.approx(expected.item(), abs=1e-12)


def test_full_kl_has_the_gradient_of_the_divergence():
    logits = P.clone().requires_grad_()
    full_kl(logits, Q).backward()
    expected = [0.156608, -0.064473, -0.05735, -0.034785]
    assert logits.grad.tolist() == pytest.approx(expected, abs=1e-6)


def test_full_kl_against_its_own_copy_is_inert():
    logits = P.clone().requires_grad_()
    loss = full_kl(logits, logits.detach())
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() < 1e-15


def test_excluded_tokens_count_nothing_and_break_no_gradient():
    closed = torch.tensor([-torch.inf], dtype=torch.float64)
    p, q = (torch.cat([x, closed]).requires_grad_() for x in (P, Q))
    assert full_kl(p, q).item() == pytest.approx(full_kl(P, Q).item(), abs=1e-15)
    assert entropy(p).item() == pytest.approx(entropy(P).item(), abs=1e-15)
    (full_kl(p, q) + entropy(p)).backward()
    assert p.grad.isfinite().all()
    assert q.grad.isfinite().all()
    assert full_kl(torch.zeros(2), torch.tensor([0.0, -torch.inf])).item() == math.inf


def test_both_at_once_are_both_with_the_gradient_of_the_first():
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(4, 5, 11, generator=generator)).double().requires_grad_()
    tokens = torch.randint(0, 11, (4, 5), generator=generator)
    weights = torch.randn(4, 5, generator=generator).double()
    found, uncertainty = logprobs_and_entropy(logits, tokens)
    expected = token_logprobs(logits, tokens)
    assert torch.equal(found, expected)
    assert not uncertainty.requires_grad
    torch.testing.assert_close(uncertainty, entropy(logits).detach(), rtol=1e-12, atol=1e-12)
    (of_found,) = torch.autograd.grad((weights * found).sum(), logits)
    (of_expected,) = torch.autograd.grad((weights * expected).sum(), logits)
    torch.testing.assert_close(of_found, of_expected, rtol=1e-12, atol=1e-12)


def test_both_at_once_pass_the_numerical_gradient_check():
    logits = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([0, 5, 2])
    assert torch.autograd.gradcheck(lambda z: logprobs_and_entropy(z, tokens)[0], logits)


def test_a_token_excluded_by_minus_infinity_adds_nothing_at_once_either():
    logits = torch.tensor([[0.0, 0.0, -math.inf]], requires_grad=True)
    found, uncertainty = logprobs_and_entropy(logits, torch.tensor([1]))
    assert uncertainty.item() == pytest.approx(math.log(2))
    found.sum().backward()
    assert torch.allclose(logits.grad, torch.tensor([[-0.5, 0.5, 0.0]]))


def test_both_at_once_of_bf16_logits_are_in_single_precision():
    logits = (3 * torch.randn(4, 1000)).bfloat16().requires_grad_()
    found, uncertainty = logprobs_and_entropy(logits, torch.randint(0, 1000, (4,)))
    assert found.dtype == uncertainty.dtype == torch.float32
    found.sum().backward()
    assert logits.grad.dtype == torch.bfloat16
