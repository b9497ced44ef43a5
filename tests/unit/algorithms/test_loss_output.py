"""Metrics of micro-batches combine into those of one batch."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.algorithms import LossOutput, merge_metrics, ppo_policy_loss, ppo_value_loss


def test_a_loss_unpacks_into_loss_and_metrics():
    loss, metrics = LossOutput(torch.tensor(1.0), {"policy/loss": torch.tensor(1.0)})
    assert loss == metrics["policy/loss"]


def test_means_add_and_extremes_do_not():
    parts = [
        {"a": torch.tensor(1.0), "r_max": torch.tensor(3.0), "r_min": torch.tensor(-1.0)},
        {"a": torch.tensor(2.0), "r_max": torch.tensor(2.0), "r_min": torch.tensor(-5.0)},
    ]
    merged = merge_metrics(parts)
    assert {name: value.item() for name, value in merged.items()} == {
        "a": 3.0,
        "r_max": 3.0,
        "r_min": -5.0,
    }


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_metrics_of_single_rows_merge_into_those_of_the_batch(seed, ragged):
    batch = ragged(seed)
    tokens = int(batch.mask.sum())

    def metrics(part):
        policy = ppo_policy_loss(*part.policy(), clip=0.2, dual_clip=3.0, denominator=tokens)
        critic = ppo_value_loss(*part.critic(), clip=0.2, denominator=tokens)
        return policy.metrics | critic.metrics

    whole = metrics(batch)
    rows = (batch.map(lambda x, i=i: x[i : i + 1]) for i in range(len(batch.mask)))
    merged = merge_metrics(metrics(row) for row in rows)
    assert merged.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.allclose(merged[name], value, rtol=1e-12, atol=1e-12), name
        assert not value.requires_grad
