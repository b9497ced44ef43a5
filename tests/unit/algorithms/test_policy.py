"""The clipped loss: its table, its gradient, its metrics, and what it must never read."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import entropy, ppo_policy_loss, token_logprobs

SEEDS = st.integers(0, 10**6)
RATIOS = (0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5)


def single(ratio, advantage, **options):
    """Loss of one token, and its derivative with respect to the ratio."""
    logprob = torch.tensor([[ratio]], dtype=torch.float64).log().requires_grad_()
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    output = ppo_policy_loss(logprob, zero, zero + advantage, one, **{"clip": 0.2, **options})
    output.loss.backward()
    return output.loss.item(), logprob.grad.item() / ratio, output.metrics


@pytest.mark.parametrize(
    ("advantage", "losses"),
    [
        (1, (-0.5, -0.8, -0.9, -1.0, -1.1, -1.2, -1.2)),
        (-1, (0.8, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5)),
    ],
)
def test_clip_table(advantage, losses):
    for ratio, loss in zip(RATIOS, losses, strict=True):
        assert single(ratio, advantage)[0] == pytest.approx(loss, abs=1e-12)


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [
        # The bounds themselves are left out: at a tie the gradient is not a contract.
        (0.5, 1, -1),
        (0.9, 1, -1),
        (1.0, 1, -1),
        (1.1, 1, -1),
        (1.5, 1, 0),
        (0.5, -1, 0),
        (0.9, -1, 1),
        (1.0, -1, 1),
        (1.1, -1, 1),
        (1.5, -1, 1),
    ],
)
def test_gradient_flows_only_towards_the_trust_region(ratio, advantage, slope):
    assert single(ratio, advantage)[1] == pytest.approx(slope, abs=1e-12)


def seven(advantage):
    # A hair inside the band, where rounding of exp(log r) would decide otherwise.
    ratios = [0.5, 0.8 + 1e-9, 0.9, 1.0, 1.1, 1.2 - 1e-9, 1.5]
    logprobs = torch.tensor([ratios], dtype=torch.float64).log()
    zeros = torch.zeros_like(logprobs)
    mask = torch.ones_like(zeros, dtype=torch.bool)
    return ppo_policy_loss(logprobs, zeros, zeros + advantage, mask, clip=0.2).metrics


@pytest.mark.parametrize("advantage", [1, -1])
def test_two_clip_fractions_answer_two_questions(advantage):
    metrics = seven(advantage)
    assert metrics["policy/clip_active_fraction"].item() == pytest.approx(1 / 7)
    assert metrics["policy/clip_range_fraction"].item() == pytest.approx(2 / 7)


def test_upper_clip_may_differ_from_the_lower():
    assert single(1.25, 1, clip_high=0.28)[0] == pytest.approx(-1.25)
    assert single(1.25, 1)[0] == pytest.approx(-1.2)
    assert single(1.5, 1, clip_high=0.28)[0] == pytest.approx(-1.28)
    assert single(0.5, -1, clip_high=0.28)[0] == pytest.approx(0.8)
    assert single(1.25, 1, clip_high=0.28)[2]["policy/clip_range_fraction"].item() == 0


def test_dual_clip_bounds_the_loss_of_a_bad_token():
    loss, slope, metrics = single(5.0, -1, dual_clip=3.0)
    assert (loss, slope) == (pytest.approx(3.0), 0)
    assert metrics["policy/dual_clip_fraction"].item() == 1
    assert single(5.0, -1)[0] == pytest.approx(5.0)
    assert single(2.0, -1, dual_clip=3.0)[0] == pytest.approx(2.0)
    assert single(5.0, 1, dual_clip=3.0)[0] == pytest.approx(-1.2)


@pytest.mark.parametrize(
    "wrong", [{"clip": 0.0}, {"clip": 1.0}, {"clip": 0.2, "clip_high": -0.1}, {"dual_clip": 1.0}]
)
def test_clips_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="clip"):
        single(1.0, 1, **wrong)


def test_at_ratio_1_the_gradient_is_the_policy_gradient():
    logits = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(0, 6, (3, 4))
    advantages = torch.randn(3, 4, dtype=torch.float64)
    mask = torch.rand(3, 4) < 0.7
    logprobs = token_logprobs(logits, tokens)
    ppo_policy_loss(logprobs, logprobs.detach(), advantages, mask, clip=0.2).loss.backward()
    # d/dz of -A log p(a) is A (softmax(z) - onehot(a)).
    onehot = torch.nn.functional.one_hot(tokens, 6).double()
    expected = advantages[..., None] * (logits.detach().softmax(-1) - onehot)
    expected = torch.where(mask[..., None], expected, 0) / mask.sum()
    assert torch.allclose(logits.grad, expected, rtol=0, atol=1e-12)


def test_only_the_new_logprobs_receive_a_gradient():
    inputs = [torch.randn(1, 3, requires_grad=True) for _ in range(3)]
    ppo_policy_loss(*inputs, torch.ones(1, 3, dtype=torch.bool), clip=0.2).loss.backward()
    assert [x.grad is not None for x in inputs] == [True, False, False]


@pytest.mark.parametrize(("new", "old", "kl"), [(100.0, 0.0, -100.0), (-100.0, 0.0, 100.0)])
def test_a_vast_ratio_stays_finite_and_its_kl_is_reported_unclamped(new, old, kl):
    logprobs = torch.tensor([[new]], requires_grad=True)
    old_logprobs, advantages = torch.tensor([[old]]), torch.tensor([[-1.0]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss, metrics = ppo_policy_loss(logprobs, old_logprobs, advantages, mask, clip=0.2)
    loss.backward()
    assert loss.isfinite()
    assert logprobs.grad.isfinite().all()
    assert metrics["policy/approx_kl_k1"].item() == kl
    assert all(value.isfinite() for value in metrics.values())
    # The control: the ratio without the clamp.
    assert (logprobs - old_logprobs).exp().item() in (float("inf"), pytest.approx(0, abs=1e-30))


def test_log_ratio_is_reported_as_it_is_although_the_loss_clamps_it():
    new, old = torch.tensor([[-1.0, -60.0, 7.0]]), torch.tensor([[-2.0, -10.0, -99.0]])
    mask = torch.tensor([[True, True, False]])
    metrics = ppo_policy_loss(new, old, torch.ones(1, 3), mask, clip=0.2).metrics
    assert metrics["policy/log_ratio_max"].item() == 50


@settings(max_examples=40)
@given(seed=SEEDS)
def test_metrics_equal_numpy_on_a_ragged_batch(seed, ragged, garbage):
    batch = ragged(seed)
    _, metrics = ppo_policy_loss(
        *(garbage(x, batch.mask) for x in batch.policy()[:3]), batch.mask, clip=0.2
    )
    if not batch.mask.any():
        assert metrics["policy/ratio_mean"].item() == 0
        return
    new, old, advantage = (x[batch.mask].numpy() for x in batch.policy()[:3])
    ratio = np.exp(new - old)
    inner = np.clip(ratio, 0.8, 1.2)
    expected = {
        "policy/loss": -np.minimum(advantage * ratio, advantage * inner).mean(),
        "policy/clip_active_fraction": (advantage * inner < advantage * ratio).mean(),
        "policy/clip_range_fraction": (np.abs(ratio - 1) > 0.2).mean(),
        "policy/ratio_mean": ratio.mean(),
        "policy/ratio_max": ratio.max(),
        "policy/ratio_min": ratio.min(),
        "policy/log_ratio_max": np.abs(new - old).max(),
        "policy/approx_kl_k1": (old - new).mean(),
        "policy/approx_kl_k3": (ratio - 1 - np.log(ratio)).mean(),
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert metrics[name].item() == pytest.approx(value, abs=1e-12), name


@settings(max_examples=30)
@given(seed=SEEDS)
def test_what_the_mask_hides_and_how_rows_are_laid_out_change_nothing(seed, ragged, garbage):
    batch = ragged(seed)
    order = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(seed))
    plain = ppo_policy_loss(*batch.policy(), clip=0.2)
    moved = batch.map(lambda x: torch.nn.functional.pad(x[order], (2, 50), value=0))
    new = garbage(moved.logprobs, moved.mask).requires_grad_()
    loss, metrics = ppo_policy_loss(
        new,
        garbage(moved.old_logprobs, moved.mask),
        garbage(moved.advantages, moved.mask),
        moved.mask,
        clip=0.2,
    )
    loss.backward()
    assert torch.allclose(loss, plain.loss, rtol=1e-12, atol=1e-12)
    for name, value in plain.metrics.items():
        assert torch.allclose(metrics[name], value, rtol=1e-12, atol=1e-12), name
    assert new.grad[~moved.mask].abs().sum() == 0


def test_an_empty_row_changes_nothing_and_an_empty_batch_gives_zero():
    new = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    old, advantages = torch.randn(2, 2, 3, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [False] * 3])
    both = ppo_policy_loss(new, old, advantages, mask, clip=0.2).loss
    alone = ppo_policy_loss(new[:1], old[:1], advantages[:1], mask[:1], clip=0.2).loss
    assert both.item() == alone.item()

    loss, metrics = ppo_policy_loss(new, old, advantages, torch.zeros_like(mask), clip=0.2)
    assert loss.item() == 0
    assert loss.requires_grad
    assert not any(value.isnan() for value in metrics.values())


def test_the_stop_token_is_trained_and_nothing_after_it():
    tokens = torch.tensor([[5, 6, 2, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0]], dtype=torch.bool)
    logits = torch.randn(1, 5, 8, dtype=torch.float64)
    old = token_logprobs(logits, tokens) + 0.05
    advantages = torch.randn(1, 5, dtype=torch.float64)

    def outcome(z, ids):
        loss, metrics = ppo_policy_loss(token_logprobs(z, ids), old, advantages, mask, clip=0.2)
        return torch.stack([loss, *metrics.values(), entropy(z)[mask].mean()])

    plain = outcome(logits, tokens)
    after = logits.clone()
    after[0, 3:] = 1e3 * torch.randn(2, 8, dtype=torch.float64)
    assert torch.equal(outcome(after, torch.tensor([[5, 6, 2, 7, 1]])), plain)
    at_the_stop_token = logits.clone()
    at_the_stop_token[0, 2, 2] += 0.1
    assert outcome(at_the_stop_token, tokens)[0] != plain[0]


def test_shapes_that_differ_are_refused():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"advantages \(2, 1\)"):
        ppo_policy_loss(x, x, torch.zeros(2, 1), torch.ones(2, 3, dtype=torch.bool), clip=0.2)
