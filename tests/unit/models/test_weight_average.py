"""The mean of weights, against what it must be for linear models, and what it refuses."""

import pytest
import torch
from torch import nn

from tutelage.errors import ModelError
from tutelage.models.weight_average import average_weights


def linear(weight: list[float], bias: float) -> nn.Linear:
    layer = nn.Linear(len(weight), 1)
    layer.weight.data = torch.tensor([weight])
    layer.bias.data = torch.tensor([bias])
    return layer


def test_a_linear_model_of_mean_weights_scores_the_mean():
    models = [linear([1.0, -2.0], 0.5), linear([3.0, 4.0], -1.5), linear([2.0, 1.0], 4.0)]
    inputs = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    target = linear([0.0, 0.0], 0.0)
    average_weights(target, models)
    expected = torch.stack([model(inputs) for model in models]).mean(0)
    torch.testing.assert_close(target(inputs), expected)
    assert target.weight.tolist() == [[2.0, 1.0]]


def test_order_does_not_matter_in_the_last_digit():
    models = [linear([0.1 * k, 1e7 / (k + 1)], 1 / (k + 3)) for k in range(5)]
    there, back = linear([0.0, 0.0], 0.0), linear([0.0, 0.0], 0.0)
    average_weights(there, models)
    average_weights(back, models[::-1])
    assert torch.equal(there.weight, back.weight)
    assert torch.equal(there.bias, back.bias)


def test_the_target_may_be_one_of_the_models():
    models = [linear([1.0], 0.0), linear([3.0], 2.0)]
    average_weights(models[0], models)
    assert (models[0].weight.item(), models[0].bias.item()) == (2.0, 1.0)


def test_other_architectures_are_refused():
    with pytest.raises(ModelError, match="one architecture"):
        average_weights(linear([1.0], 0.0), [linear([1.0, 2.0], 0.0)])
    with pytest.raises(ModelError, match="no models"):
        average_weights(linear([1.0], 0.0), [])
