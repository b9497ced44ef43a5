"""What a prompt's scores say about how often to draw it, by hand."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.algorithms import draw_probabilities, pass_rate, score_variance

NAN = float("nan")


def scores(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_variance_by_hand():
    """1 3 has mean 2; the third prompt's failed score leaves 0 0 3 with mean 1."""
    found = score_variance(
        scores([1, 3, 1, 3], [7, 7, 7, 7], [0, 0, 3, NAN], [NAN, NAN, NAN, 5], [NAN] * 4)
    )
    assert found.tolist() == pytest.approx([1, 0, 2, NAN, NAN], nan_ok=True)


@given(st.lists(st.booleans(), min_size=2, max_size=12))
def test_variance_of_passes_and_failures_is_p_times_1_minus_p(passed):
    p = Fraction(sum(passed), len(passed))
    found = score_variance(scores([float(x) for x in passed])).item()
    assert found == pytest.approx(float(p * (1 - p)), abs=1e-12)


def test_pass_rate_by_hand():
    found = pass_rate(
        scores([1, 0.5, 0.4, 0], [0.5, 0.4, NAN, NAN], [NAN] * 4), pass_score=0.5
    ).tolist()
    assert found == pytest.approx([0.5, 0.5, NAN], nan_ok=True)


def test_probabilities_by_hand():
    """ε = 0.2 spreads 0.05 over each of four; the rest goes as 1 : 3."""
    found = draw_probabilities(scores([1, 3, 0, 0])[0], uniform_share=0.2)
    assert found.tolist() == pytest.approx([0.25, 0.65, 0.05, 0.05])


def test_an_unknown_prompt_weighs_as_much_as_the_mean_of_the_known():
    """Known 0 and 2, unknown 1 and 1: a quarter each and a half, ε apart."""
    found = draw_probabilities(scores([0, 2, NAN, NAN])[0], uniform_share=0.0)
    assert found.tolist() == pytest.approx([0, 0.5, 0.25, 0.25])


def test_where_nothing_is_learnable_the_unknown_are_drawn():
    found = draw_probabilities(scores([0, 0, NAN, NAN])[0], uniform_share=0.2)
    assert found.tolist() == pytest.approx([0.05, 0.05, 0.45, 0.45])


@pytest.mark.parametrize("weights", [[0.0] * 5, [NAN] * 5], ids=["all solved", "none seen"])
def test_without_a_difference_all_are_alike(weights):
    found = draw_probabilities(scores(weights)[0], uniform_share=0.3)
    assert found.tolist() == pytest.approx([0.2] * 5)


@given(st.lists(st.floats(0, 1e6) | st.just(NAN), min_size=1, max_size=9), st.floats(0.01, 1.0))
def test_probabilities_add_up_and_none_is_below_the_uniform_share(weights, share):
    found = draw_probabilities(scores(weights)[0], uniform_share=share)
    assert found.sum().item() == pytest.approx(1)
    assert found.min().item() >= share / len(weights) * (1 - 1e-12)
