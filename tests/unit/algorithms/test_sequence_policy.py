"""The ratio of whole completions: its definition, and GSPO beside PPO."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.algorithms import gspo_policy_loss, loss_denominator, ppo_policy_loss, sequence_ratio

SEEDS = st.integers(0, 10**6)


@given(SEEDS)
def test_sequence_ratio_is_the_geometric_mean_of_the_tokens_ratios(ragged, garbage, seed):
    batch = ragged(seed)
    new, old = (garbage(x, batch.mask) for x in (batch.logprobs, batch.old_logprobs))
    found = sequence_ratio(new, old, batch.mask).squeeze(1).tolist()
    ratios = (batch.logprobs - batch.old_logprobs).exp().numpy()
    for ratio, row, mask in zip(found, ratios, batch.mask.numpy(), strict=True):
        kept = row[mask]
        expected = np.prod(kept) ** (1 / len(kept)) if len(kept) else 1.0
        assert ratio == pytest.approx(expected, rel=1e-12)


def test_gspo_by_hand():
    """Two rows; ratios (1.2, 1.0) and (0.5): s = sqrt(1.2) and 0.5."""
    new = torch.tensor([[1.2, 1.0], [0.5, 1.0]], dtype=torch.float64).log()
    mask = torch.tensor([[True, True], [True, False]])
    advantages = torch.tensor([[2.0, 2.0], [-1.0, 0.0]], dtype=torch.float64)
    denominator = loss_denominator(mask, "sequence_mean")
    options = {"clip": 0.1, "denominator": denominator}
    output = gspo_policy_loss(new, torch.zeros_like(new), advantages, mask, **options)
    # Row 1: s = 1.0954 lies in the band. Row 2: max(0.5, 0.9) = 0.9, the clip decides.
    assert output.loss.item() == pytest.approx((-2 * math.sqrt(1.2) + 0.9) / 2, abs=1e-12)
    assert output.metrics["policy/clip_active_fraction"].item() == pytest.approx(0.5)
    assert output.metrics["policy/ratio_max"].item() == pytest.approx(1.2)


@given(SEEDS, st.sampled_from([{}, {"clip_high": 0.4}, {"dual_clip": 2.0}]))
def test_of_one_token_gspo_is_ppo(ragged, seed, options):
    batch = ragged(seed)
    first = batch.map(lambda x: x[:, :1])
    found, expected = [], []
    for loss, results in ((gspo_policy_loss, found), (ppo_policy_loss, expected)):
        new = first.logprobs.clone().requires_grad_()
        output = loss(new, *first.policy()[1:], clip=0.1, **options)
        output.loss.backward()
        results += [output.loss.detach(), new.grad, *output.metrics.values()]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_all_tokens_of_a_completion_share_one_gradient_or_none():
    old = torch.zeros(2, 3, dtype=torch.float64)
    # The first row's mean ratio leaves the band upwards, though its last token is below 1.
    new = torch.tensor([[0.9, 0.9, -0.1], [0.1, -0.1, 0.06]], dtype=torch.float64).requires_grad_()
    mask = torch.ones(2, 3, dtype=torch.bool)
    loss = gspo_policy_loss(new, old, torch.ones_like(old), mask, clip=0.2).loss
    loss.backward()
    assert new.grad[0].tolist() == [0, 0, 0]
    # -s / (3 tokens x 2 rows) each: d s / d log pi_t = s / 3, times 3 tokens, over 6.
    assert new.grad[1].tolist() == pytest.approx([-math.exp(0.02) / 6] * 3, abs=1e-12)


@given(SEEDS)
def test_rows_add_up_to_the_batch(ragged, seed):
    batch = ragged(seed)
    denominator = loss_denominator(batch.mask, "sequence_mean")
    whole = gspo_policy_loss(*batch.policy(), clip=0.1, denominator=denominator).loss
    parts = [
        gspo_policy_loss(
            *(x[i : i + 1] for x in batch.policy()), clip=0.1, denominator=denominator[i : i + 1]
        ).loss
        for i in range(len(batch.mask))
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"clip": 0.0}, "0 < clip < 1"), ({"clip": 0.2, "dual_clip": 1.0}, "dual_clip must be above")],
)
def test_clips_out_of_range_are_refused(options, message):
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match=message):
        gspo_policy_loss(one, one, one, one.bool(), **options)
