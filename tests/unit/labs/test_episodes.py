import numpy as np
import torch

from tutelage.labs.cartpole import advantages_and_returns
from tutelage.labs.episodes import Collector


class Countdown:
    """Episodes of given lengths in turn; observes (episode, step) and pays 10 episode + step."""

    def __init__(self, lengths: list[int], *, cut: bool = False) -> None:
        self.lengths, self.cut = lengths, cut
        self.episode, self.seed = -1, None

    def reset(self, *, seed=None):
        self.seed = self.seed if seed is None else seed
        self.episode, self.at = self.episode + 1, 0
        return np.array([self.episode, 0.0]), {}

    def step(self, action):
        paid = 10.0 * self.episode + self.at
        self.at += 1
        over = self.at == self.lengths[self.episode % len(self.lengths)]
        seen = np.array([self.episode, self.at], float)
        return seen, paid, over and not self.cut, over and self.cut, {}


def left(observations):
    return [0] * len(observations)


def test_window_is_cut_at_the_ends_of_episodes():
    collector = Collector([Countdown([2, 3])], seed=5)
    rollout = collector.window(left, 4)
    assert rollout.mask.tolist() == [[True, True], [True, True]]
    assert rollout.rewards.tolist() == [[0, 1], [10, 11]]
    assert rollout.ended.tolist() == [True, False]
    assert rollout.next_observations.tolist() == [[0, 2], [1, 2]]
    assert collector.environments[0].seed == 5
    assert (collector.steps, collector.finished) == (4, [(2, 1.0)])


def test_episode_goes_on_in_the_next_window():
    collector = Collector([Countdown([2, 3])], seed=0)
    collector.window(left, 4)
    rollout = collector.window(left, 2)
    assert rollout.observations.tolist() == [[[1, 2]], [[2, 0]]]
    assert rollout.ended.tolist() == [True, False]
    assert collector.finished[-1] == (5, 33.0)


def test_whole_episodes_have_a_row_each_and_their_padding_is_masked():
    collector = Collector([Countdown([1, 9]), Countdown([3, 9])], seed=0)
    rollout = collector.episodes(left)
    assert rollout.mask.tolist() == [[True, False, False], [True, True, True]]
    assert rollout.rewards.tolist() == [[0, 0, 0], [0, 1, 2]]
    assert collector.episodes(left).mask.sum(1).tolist() == [9, 9]


def test_episode_that_was_cut_has_not_ended():
    rollout = Collector([Countdown([2], cut=True)], seed=0).window(left, 2)
    assert rollout.ended.tolist() == [False]
    assert rollout.next_observations.tolist() == [[0, 2]]


def flat_gae(rewards, values, after, over, ended, *, gamma, lam):
    """Schulman et al. 2016, eq. 16, backwards along one environment with flags at its ends."""
    advantages, ahead = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        error = rewards[t] + gamma * after[t] * (not ended[t]) - values[t]
        ahead = error + gamma * lam * ahead * (not over[t])
        advantages[t] = ahead
    return advantages


def test_rows_have_the_advantages_of_one_long_line_with_flags():
    """One environment, twelve steps: episodes of 3, 4 and the beginning of a third."""

    def critic(x):
        return (0.3 * x[..., :1] - 0.7 * x[..., 1:]).sin()

    for cut in (False, True):
        rollout = Collector([Countdown([3, 4, 9], cut=cut)], seed=0).window(left, 12)
        advantages, returns, values = advantages_and_returns(rollout, critic, gamma=0.9, lam=0.7)
        seen = [(0, s) for s in range(3)] + [(1, s) for s in range(4)] + [(2, s) for s in range(5)]
        rewards = np.array([10.0 * e + s for e, s in seen])
        over = np.array([t in (2, 6, 11) for t in range(12)])
        ended = np.array([not cut and t in (2, 6) for t in range(12)])
        now = critic(torch.tensor(seen)).squeeze(-1).numpy()
        after = critic(torch.tensor([(e, s + 1) for e, s in seen])).squeeze(-1).numpy()
        expected = flat_gae(rewards, now, after, over, ended, gamma=0.9, lam=0.7)
        assert np.allclose(advantages[rollout.mask], expected, rtol=1e-5, atol=1e-5)
        assert np.allclose(returns[rollout.mask], expected + now, rtol=1e-5, atol=1e-5)
        assert torch.equal(values[rollout.mask], torch.as_tensor(now))


def test_without_a_critic_the_advantage_is_what_is_still_earned():
    rollout = Collector([Countdown([3])], seed=0).episodes(left)
    advantages, _, _ = advantages_and_returns(rollout, None, gamma=0.5, lam=1.0)
    assert advantages.tolist() == [[0 + 0.5 * 1 + 0.25 * 2, 1 + 0.5 * 2, 2]]
