"""Best-of-n against all subsets drawn one by one, and the curve against planted constants."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.evaluation.best_of_n import (
    BestOfN,
    OveroptimisationFit,
    best_of_n,
    best_of_n_curve,
    best_of_n_weights,
    fit_overoptimisation,
    kl_best_of_n,
)

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def over_all_subsets(proxy, values, n: int) -> float:
    """Draws every subset, takes its best by proxy, equally good ones with equal chance."""
    found = []
    for subset in combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in subset)
        found.append(np.mean([values[i] for i in subset if proxy[i] == best]))
    return float(np.mean(found))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(-3, 3)), min_size=1, max_size=8),
    st.data(),
)
def test_equals_the_mean_over_all_subsets_ties_included(rows, data):
    proxy, values = zip(*rows, strict=True)
    n = data.draw(st.integers(1, len(rows)))
    assert best_of_n(proxy, values, n) == pytest.approx(over_all_subsets(proxy, values, n))


def test_hand_computed_weights():
    """Best of 2 among 4: of 6 pairs, rank 2 wins 1, rank 3 wins 2, rank 4 wins 3."""
    np.testing.assert_allclose(best_of_n_weights(4, 2), [0, 1 / 6, 2 / 6, 3 / 6])


@pytest.mark.parametrize("n", SIZES)
def test_weights_of_many_samples_are_the_exact_fractions(n):
    exact = [math.comb(j - 1, n - 1) / math.comb(256, n) for j in range(1, 257)]
    np.testing.assert_allclose(best_of_n_weights(256, n), exact, rtol=1e-11)
    assert best_of_n_weights(256, n).sum() == pytest.approx(1.0, abs=1e-12)


def test_weights_of_a_hundred_thousand_samples_do_not_overflow():
    weights = best_of_n_weights(100_000, 50_000)
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1.0, abs=1e-9)


def test_best_of_one_is_the_mean_and_best_of_all_is_the_best():
    random = np.random.default_rng(0)
    proxy, values = random.normal(size=(2, 40))
    assert best_of_n(proxy, values, 1) == pytest.approx(values.mean())
    assert best_of_n(proxy, values, 40) == pytest.approx(values[proxy.argmax()])


def test_a_proxy_without_any_opinion_gains_nothing():
    values = np.arange(10.0)
    assert best_of_n(np.zeros(10), values, 7) == pytest.approx(values.mean())


def test_uniform_scores_have_the_expected_maximum():
    """The best of n uniform numbers is n / (n + 1) on average; 2000 prompts know it to 0.002."""
    scores = np.random.default_rng(1).random((2000, 32))
    curve = best_of_n_curve(scores, -scores, (1, 2, 4, 8, 16))
    # Four standard errors of a mean over 2000 prompts, at n = 1 the largest.
    np.testing.assert_allclose(curve.proxy, [n / (n + 1) for n in curve.sizes], atol=0.005)
    np.testing.assert_allclose(curve.gold, [-value for value in curve.proxy])


def test_curve_is_the_mean_over_prompts():
    random = np.random.default_rng(2)
    proxy, gold = random.integers(0, 5, (3, 12)).astype(float), random.normal(size=(3, 12))
    curve = best_of_n_curve(proxy, gold, (1, 3, 12))
    for n, shown, worth in zip(curve.sizes, curve.proxy, curve.gold, strict=True):
        assert shown == pytest.approx(np.mean([best_of_n(p, p, n) for p in proxy]))
        assert worth == pytest.approx(
            np.mean([best_of_n(p, g, n) for p, g in zip(proxy, gold, strict=True)])
        )


@pytest.mark.parametrize("n", [1, 2, 7, 256])
def test_kl_is_the_integral_over_the_density_of_the_best(n):
    """The rank of the best of n has density n u^(n-1) on [0, 1]; one sample's is uniform."""
    u = (np.arange(1_000_000) + 0.5) / 1_000_000
    density = n * u ** (n - 1)
    logarithm = math.log(n) + (n - 1) * np.log(u)
    assert kl_best_of_n(n) == pytest.approx(float(np.mean(density * logarithm)), abs=1e-6)


def test_planted_constants_are_found():
    distance = np.array([math.sqrt(kl_best_of_n(n)) for n in SIZES[1:]])
    fit = fit_overoptimisation(distance, distance * (0.6 - 0.25 * distance))
    assert fit.alpha == pytest.approx(0.6)
    assert fit.beta == pytest.approx(0.25)
    assert fit.r_squared == pytest.approx(1.0)
    assert fit.peak == pytest.approx(1.2)


def test_fit_of_a_curve_counts_gains_from_one_sample():
    distance = [math.sqrt(kl_best_of_n(n)) for n in SIZES]
    gold = tuple(0.27 + d * (0.4 - 0.3 * d) for d in distance)
    fit = BestOfN(SIZES, gold, gold).fit()
    assert (fit.alpha, fit.beta) == (pytest.approx(0.4), pytest.approx(0.3))


def test_explained_share_falls_with_noise_as_it_should():
    """r_squared by its definition from predictions, and clearly below 1."""
    random = np.random.default_rng(3)
    distance = np.linspace(0.2, 2.2, 40)
    gain = distance * (0.6 - 0.25 * distance) + random.normal(0, 0.1, 40)
    fit = fit_overoptimisation(distance, gain)
    predicted = fit.alpha * distance - fit.beta * distance**2
    expected = 1 - ((gain - predicted) ** 2).sum() / ((gain - gain.mean()) ** 2).sum()
    assert fit.r_squared == pytest.approx(expected)
    assert 0.3 < fit.r_squared < 0.9
    for change in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        other = (fit.alpha + change[0]) * distance - (fit.beta + change[1]) * distance**2
        assert ((gain - other) ** 2).sum() > ((gain - predicted) ** 2).sum()


def test_peak_is_never_where_gold_only_rises_and_at_once_where_it_only_falls():
    assert OveroptimisationFit(0.5, -0.1, 1.0).peak == math.inf
    assert OveroptimisationFit(0.5, 0.0, 1.0).peak == math.inf
    assert OveroptimisationFit(-0.5, 0.1, 1.0).peak == 0.0
    assert OveroptimisationFit(-0.5, -0.1, 1.0).peak == 0.0


def test_a_proxy_that_pays_for_a_fault_peaks_before_one_that_does_not():
    """Gold is q - 2 relu(l - 1): one proxy sees q with noise, the other is also paid for l."""
    random = np.random.default_rng(4)
    quality, length, noise = random.normal(size=(3, 200, 256))
    gold = quality - 2 * np.maximum(0, length - 1)
    fair = best_of_n_curve(quality + noise, gold, SIZES).fit()
    biased = best_of_n_curve(quality + noise + 2 * length, gold, SIZES).fit()
    assert biased.peak < fair.peak


@pytest.mark.parametrize("n", [0, 5])
def test_sizes_outside_the_samples_are_refused(n):
    with pytest.raises(DataError, match=f"best of {n} among 4"):
        best_of_n_weights(4, n)


def test_unusable_numbers_are_refused():
    with pytest.raises(DataError, match="not finite"):
        best_of_n([1.0, math.nan], [0.0, 0.0], 1)
    with pytest.raises(DataError, match="shape"):
        best_of_n([1.0, 2.0], [0.0], 1)
    with pytest.raises(DataError, match="shape"):
        best_of_n_curve([1.0, 2.0], [0.0, 1.0], (1,))
    with pytest.raises(DataError, match="at least 3"):
        fit_overoptimisation([1.0, 2.0], [0.0, 1.0])
    with pytest.raises(DataError, match="begin with 2"):
        BestOfN((2, 4, 8, 16), (0.0,) * 4, (0.0,) * 4).fit()
    with pytest.raises(DataError, match="at least 1"):
        kl_best_of_n(0)
