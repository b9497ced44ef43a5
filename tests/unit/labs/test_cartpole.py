import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tutelage.errors import MissingExtraError
from tutelage.labs.cartpole import (
    ACTOR_CRITIC,
    LEARNERS,
    PPO,
    REINFORCE,
    cartpole,
    evaluate,
    gradient_samples,
    learn,
    network,
    random_actions,
    sampler,
    update_loss,
    updates,
)
from tutelage.labs.cartpole_lab import gradient_noise
from tutelage.labs.episodes import Collector


class Identity:
    """Shows one of three signs, and pays 1 for its number; ten signs an episode."""

    def reset(self, *, seed=None):
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.at = 0
        return self._show(), {}

    def _show(self):
        self.sign = int(self.random.integers(3))
        return np.eye(3)[self.sign]

    def step(self, action):
        paid = float(action == self.sign)
        self.at += 1
        return self._show(), paid, self.at == 10, False, {}


QUICK = {"REINFORCE": 1e-2, "REINFORCE + baseline": 1e-2, "actor-critic": 1e-2, "PPO": 1e-2}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_solves_the_identity(name):
    settings = replace(
        LEARNERS[name], learning_rate=QUICK[name], gamma=0.5, epochs=min(4, LEARNERS[name].epochs)
    )
    run = learn(Identity, settings, steps=6000, seed=0, features=3, actions=3)
    assert evaluate(Identity, sampler(run.policy, None), episodes=5).tolist() == [10] * 5


def test_update_of_reinforce_follows_the_policy_gradient():
    """One plain step by hand: the mean over steps of return times grad log-probability."""
    torch.manual_seed(0)
    policy = network(3, 3, gain=1.0)
    collector = Collector([Identity()], seed=0)
    rollout = collector.episodes(random_actions(3, seed=0))
    returns = [sum(0.9 ** (k - t) * rollout.rewards[0, k] for k in range(t, 10)) for t in range(10)]
    logprobs = policy(rollout.observations).log_softmax(-1)[0, range(10), rollout.actions[0]]
    by_hand = -(torch.stack(returns) * logprobs).mean()
    expected = torch.autograd.grad(by_hand, list(policy.parameters()))
    expected = torch.cat([part.flatten() for part in expected])
    settings = replace(REINFORCE, gamma=0.9)
    (batch,) = updates(rollout, policy, None, settings, torch.Generator())
    loss = update_loss(batch, policy, None, settings, 0.2)
    found = torch.autograd.grad(loss, list(policy.parameters()))
    found = torch.cat([part.flatten() for part in found])
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_good_baseline_keeps_the_mean_and_takes_most_of_the_variance():
    """Random play earns 1/3 a step: V = Σ γ^k / 3 over what is left, roughly 1/3 / (1 - γ)."""
    torch.manual_seed(0)
    policy = network(3, 3, gain=0.01)

    def critic(x):
        return torch.full((*x.shape[:-1], 1), (1 / 3) / (1 - 0.8))

    without, having = gradient_samples(Identity, policy, critic, batches=150, gamma=0.8)
    plain, better = gradient_noise(without), gradient_noise(having)
    assert better.variance < 0.6 * plain.variance
    apart = (without.mean(0) - having.mean(0)).norm() ** 2
    # The squared distance of two means of 150 samples; 4 is generous for a sum over weights.
    assert apart < 4 * (plain.variance + better.variance) / 150


def test_noise_of_known_gradients():
    """Two samples (3, 4) and (3, -4): mean (3, 0), squared distances 16 each, over n - 1 = 1."""
    noise = gradient_noise(torch.tensor([[3.0, 4.0], [3.0, -4.0]]))
    assert noise.norms.tolist() == [5, 5]
    assert noise.variance == 32
    assert noise.signal == 0.0


def test_every_step_is_used_once_per_epoch():

    torch.manual_seed(0)
    rollout = Collector([Identity(), Identity()], seed=0).window(random_actions(3, seed=0), 13)
    settings = replace(PPO, epochs=3, minibatch=8)
    policy, critic = network(3, 3, gain=1.0), network(3, 1, gain=1.0)
    batches = list(updates(rollout, policy, critic, settings, torch.Generator()))
    assert [len(batch.actions) for batch in batches] == 3 * [8, 8, 8, 2]
    used = torch.cat([batch.returns for batch in batches[:4]]).sort(0).values
    again = torch.cat([batch.returns for batch in batches[4:8]]).sort(0).values
    assert torch.equal(used, again)
    assert len(used) == rollout.mask.sum() == 26


def test_same_seed_same_training():
    first, again, other = (
        learn(Identity, ACTOR_CRITIC, steps=600, seed=seed, features=3, actions=3).episodes
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_missing_gymnasium_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingExtraError, match=r"gymnasium is not installed.*tutelage\[labs\]"):
        cartpole()


@pytest.mark.slow
def test_ppo_stands_for_195_steps_after_20000():
    """The zoo's settings without annealing, which is made for five times as many steps."""
    pytest.importorskip("gymnasium", reason="the extra labs is not installed")
    settings = replace(PPO, anneal=False, anneal_clip=False)
    run = learn(cartpole, settings, steps=20_000, seed=0)
    assert evaluate(cartpole, sampler(run.policy, None), episodes=20).mean() >= 195
