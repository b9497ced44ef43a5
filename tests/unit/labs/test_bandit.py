import numpy as np
import pytest

from tutelage.labs.bandit import ARMS, EpsilonGreedy, Pulls, Softmax, play

AVERAGES = np.array([[1.0, 0.0, 0.0, -1.0], [2.0, 2.0, 0.0, 0.0]])


def test_epsilon_greedy_by_hand():
    """0.2 / 4 each, and 0.8 to the best, or half of it to each of two."""
    expected = [[0.85, 0.05, 0.05, 0.05], [0.45, 0.45, 0.05, 0.05]]
    assert np.allclose(EpsilonGreedy(0.2).probabilities(AVERAGES), expected, atol=1e-15)


def test_softmax_is_the_best_trade_of_reward_against_entropy():
    """No distribution has a higher E[Q] + τ H, and the maximum is τ log Σ exp(Q / τ)."""
    tau, q = 0.7, AVERAGES[0]
    chosen = Softmax(tau).probabilities(q[None])[0]

    def objective(p):
        return (p * q).sum(-1) - tau * (p * np.log(p)).sum(-1)

    others = np.random.default_rng(0).dirichlet(np.ones(4), 1000)
    assert objective(chosen) == pytest.approx(tau * np.log(np.exp(q / tau).sum()), abs=1e-12)
    assert (objective(others) < objective(chosen)).all()


def test_softmax_does_not_overflow_when_cold():
    chosen = Softmax(1e-3).probabilities(AVERAGES * 100)
    assert np.array_equal(chosen[0], [1, 0, 0, 0])
    assert np.array_equal(chosen[1], [0.5, 0.5, 0, 0])


def test_random_pulls_use_every_arm_alike_and_earn_nothing():
    pulls = play(EpsilonGreedy(1.0), pulls=500, players=100)
    # 4 standard errors of a share of 1/10 among 50,000 pulls, and of a mean of 1,000 arms.
    assert np.abs(pulls.final_distribution(500) - 0.1).max() < 4 * np.sqrt(0.09 / 50_000)
    assert abs(pulls.rewards.mean()) < 4 / np.sqrt(1000)


def test_best_of_ten_normal_arms_is_worth_1_54():
    """The mean of the largest of ten standard normal numbers (Harter 1961)."""
    pulls = play(EpsilonGreedy(1.0), pulls=1, players=20_000)
    assert pulls.best.mean() == pytest.approx(1.53875, abs=4 * 0.587 / np.sqrt(20_000))


def test_ranks_and_rewards_speak_of_the_same_arm():
    pulls = play(Softmax(1.0), pulls=50, players=30)
    assert (pulls.rewards <= pulls.best[:, None]).all()
    assert np.array_equal(pulls.rewards == pulls.best[:, None], pulls.ranks == 0)
    assert pulls.ranks.max() < ARMS


def test_final_distribution_counts_the_last_pulls_only():
    ranks = np.array([[9, 9, 0, 1], [9, 9, 0, 0]])
    pulls = Pulls(np.zeros((2, 4)), ranks, np.ones(2))
    assert pulls.final_distribution(2).tolist() == [0.75, 0.25, *[0.0] * 8]


def test_a_temperature_of_a_tenth_earns_more_than_ice_and_than_fire():
    earned = {tau: play(Softmax(tau), pulls=800).rewards.mean() for tau in (0.01, 0.1, 1.0, 10.0)}
    assert earned[0.1] > earned[0.01] > earned[10.0]
    assert earned[0.1] > earned[1.0] > earned[10.0]


def test_rules_with_the_same_seed_meet_the_same_arms():
    first, second = play(Softmax(1.0), pulls=2), play(EpsilonGreedy(0.1), pulls=2)
    assert np.array_equal(first.best, second.best)
    assert not np.array_equal(first.best, play(Softmax(1.0), pulls=2, seed=1).best)
