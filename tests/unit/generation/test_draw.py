"""Tokens are drawn from the distribution whose log-probabilities are reported."""

import pytest
import torch

from tutelage.generation.draw import draw
from tutelage.native import calls


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def operations(request, monkeypatch):
    """Of both kinds, wherever there is a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(calls, "library", lambda: None)
    return request.param


CHI_SQUARE_999 = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 7: 24.32}
"""99.9 % quantiles by degrees of freedom."""


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def drawn(logits: torch.Tensor, temperature: float, room: torch.Tensor | None = None):
    """With one number for each row, the same at each call."""
    return draw(logits, temperature, torch.rand(len(logits), generator=generator()), room)


def chi_square(tokens: torch.Tensor, probabilities: torch.Tensor) -> float:
    expected = probabilities * len(tokens)
    observed = torch.bincount(tokens, minlength=len(probabilities))
    possible = expected > 0
    assert observed[~possible].eq(0).all()
    return ((observed - expected).square() / expected)[possible].sum().item()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_are_those_of_the_softmax(temperature):
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5, 0.2])
    tokens, _ = drawn(logits.expand(40_000, 8), temperature)
    assert chi_square(tokens, (logits / temperature).softmax(0)) < CHI_SQUARE_999[7]
    # Negative control: another temperature is noticed.
    assert chi_square(tokens, (logits / temperature / 1.1).softmax(0)) > CHI_SQUARE_999[7]


def test_impossible_tokens_are_never_drawn():
    """At the beginning, in the middle and at the end, where rounding would put them."""
    never = -torch.inf
    logits = torch.tensor([never, 0.0, never, never, 1.0, -1.0, 0.5, never])
    tokens, logprobs = drawn(logits.expand(200_000, 8), 1.0)
    assert chi_square(tokens, logits.softmax(0)) < CHI_SQUARE_999[3]
    assert logprobs.isfinite().all()


@pytest.mark.parametrize("size", [2048, 2049, 4096, 5000])
def test_vocabularies_of_several_blocks_are_drawn_from_as_a_whole(size):
    """Possible tokens are the first and the last of blocks; all others have no weight."""
    possible = torch.tensor([0, 2047, 2048, 4095, 4096, size - 1]).clamp(max=size - 1).unique()
    weights = torch.arange(1.0, len(possible) + 1)
    logits = torch.full((size,), -torch.inf).index_put((possible,), weights.log())
    tokens, logprobs = drawn(logits.expand(20_000, size), 1.0)
    place = torch.searchsorted(possible, tokens)
    assert possible[place].equal(tokens)
    expected = weights / weights.sum()
    assert chi_square(place, expected) < CHI_SQUARE_999[len(possible) - 1]
    torch.testing.assert_close(logprobs, expected.log()[place], rtol=0, atol=2e-6)


def test_entries_of_a_large_vocabulary_are_drawn_in_proportion():
    """49,152 entries in 8 bins that are no blocks; a token's own probability is in its log."""
    size = 49_152
    logits = torch.randn(size, generator=generator()) * 2
    tokens, logprobs = drawn(logits.expand(500, size).repeat(40, 1), 1.0)
    bins = torch.arange(size) % 8
    expected = torch.zeros(8).index_add(0, bins, logits.softmax(0))
    assert chi_square(bins[tokens], expected) < CHI_SQUARE_999[7]
    torch.testing.assert_close(logprobs, logits.log_softmax(0)[tokens], rtol=0, atol=4e-6)


def test_every_row_draws_from_its_own_distribution():
    logits = torch.full((64, 64), -30.0).fill_diagonal_(30.0)
    tokens, _ = drawn(logits, 1.0)
    assert tokens.tolist() == list(range(64))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprob_is_that_of_the_drawn_token_at_the_temperature(temperature):
    logits = torch.randn(50, 30)
    tokens, logprobs = drawn(logits, temperature)
    expected = torch.distributions.Categorical(logits=logits / temperature).log_prob(tokens)
    torch.testing.assert_close(logprobs, expected, rtol=0, atol=2e-6)


def test_temperature_zero_takes_the_most_likely_token():
    logits = torch.randn(50, 30)
    tokens, logprobs = drawn(logits, 0.0)
    assert tokens.equal(logits.argmax(1))
    torch.testing.assert_close(logprobs, torch.log_softmax(logits, 1).amax(1))


def test_low_precision_logits_are_drawn_in_float32():
    logits = torch.randn(50, 30).bfloat16()
    tokens, logprobs = drawn(logits, 1.0)
    assert logprobs.dtype is torch.float32
    assert tokens.equal(drawn(logits.float(), 1.0)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_room_that_is_used_again_changes_nothing_and_logits_stay(temperature, dtype):
    logits = torch.randn(4, 5000, generator=generator()).to(dtype)
    before, room = logits.clone(), torch.full(logits.shape, torch.nan)
    tokens, logprobs = drawn(logits, temperature)
    assert logits.equal(before)
    for _ in range(2):
        again = drawn(logits, temperature, room)
        assert logits.equal(before)
        assert again[0].equal(tokens)
        assert again[1].equal(logprobs)
