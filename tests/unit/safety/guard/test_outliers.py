"""Clouds of hidden states: shrinkage against its own limits, outliers among normal vectors."""

import pytest
import torch

from tutelage.models import RewardModel
from tutelage.records import Message, Prompt
from tutelage.safety.guard import Clouds, last_states
from tutelage.safety.guard.outliers import shrunk_covariance


def normal(count: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


def test_many_rows_need_no_shrinkage():
    scales = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    rows = normal(200_000, 3) * scales
    # Standard errors of variances of 200 000 draws are 0.3 %.
    torch.testing.assert_close(shrunk_covariance(rows), torch.diag(scales**2), rtol=0.02, atol=0.02)


def test_few_rows_are_shrunk_to_something_with_an_inverse():
    rows = normal(10, 40)
    covariance = shrunk_covariance(rows)
    assert torch.linalg.eigvalsh(covariance).min() > 0.1
    centred = rows - rows.mean(0)
    # Shrinking moves variance between directions, and keeps all of it.
    torch.testing.assert_close(covariance.trace(), (centred.T @ centred / 10).trace())


def test_rows_that_are_all_alike_have_an_inverse_too():
    assert (
        torch.linalg.inv(shrunk_covariance(torch.ones(5, 3, dtype=torch.float64))).isfinite().all()
    )


def test_one_in_twenty_of_those_before_training_is_outside():
    clouds = Clouds.fit(normal(200, 12))
    assert sum(clouds.outside(normal(200, 12))) == pytest.approx(10, abs=1)
    # Others of the same kind: a share of 5 % over 200, within three standard errors.
    assert sum(clouds.outside(normal(200, 12, seed=1))) / 200 < 0.05 + 0.05


def test_distance_is_to_the_half_that_lacks_the_prompt():
    states = normal(200, 3)
    states[1::2] += torch.tensor([50.0, 0.0, 0.0], dtype=torch.float64)
    clouds = Clouds.fit(states)
    now = torch.zeros(2, 3, dtype=torch.float64)
    first, second = clouds.distances(now)
    # The first prompt is held against the odd ones, 50 away; the second against the even, around 0.
    assert first > 1000.0
    assert second < 1.0


def test_what_has_moved_is_outside():
    clouds = Clouds.fit(normal(200, 12))
    moved = normal(200, 12, seed=1)
    moved[:, 0] += 8.0
    assert sum(clouds.outside(moved)) / 200 > 0.9


def test_states_are_those_the_head_reads(tiny_tokenizer, tiny_causal_lm):
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(1)
    config = tiny_causal_lm().config
    model = LlamaForSequenceClassification(type(config)(**config.to_dict(), num_labels=1))
    reward = RewardModel(model.eval(), tiny_tokenizer, max_length=40)
    prompts = [Prompt(str(i), (Message("user", "ask " * (1 + i % 2)),)) for i in range(5)]
    texts = ["a", "be", "see it", "d" * 100, ""]
    states = last_states(reward, prompts, texts)
    scores = reward.score(prompts, texts)
    by_head = states.float() @ model.score.weight.detach()[0]
    assert scores[3] is None
    assert by_head[3].isnan()
    for i in (0, 1, 2, 4):
        assert float(by_head[i]) == pytest.approx(scores[i], abs=1e-5)
    outside = Clouds.fit(normal(6, 32)).outside(states)
    assert outside[3] != outside[3]
