"""Four policy gradients on a pole that must not fall, by the functions that align language models.

    Collector ──> Rollout ──gae──> advantages ──masked_whiten──> ppo_policy_loss ─┐
    critic ───────values───┘└────> returns ────────────────────> ppo_value_loss ──┴─> step

The four differ in what is put into these functions, not in the functions:

    learner                  a batch is          advantage                  updates per batch
    REINFORCE                whole episodes      gae, V = 0, λ = 1          1
    REINFORCE + baseline     whole episodes      gae, learned V, λ = 1      1
    actor-critic             short windows       gae, learned V, λ = 0.9    1
    PPO                      short windows       gae, learned V, λ = 0.8    20 epochs, clipped

With new = old log-probabilities the ratio of PPO is 1, and the gradient of its loss is the
policy gradient -A ∇log π: REINFORCE needs no loss of its own.

Sources: Williams 1992 (REINFORCE); Sutton & Barto 2018, chapter 13; Schulman et al. 2017
(arXiv:1707.06347); PPO's settings are those of RL Baselines3 Zoo for CartPole-v1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from tutelage.algorithms import (
    entropy,
    gae,
    masked_mean,
    masked_whiten,
    ppo_policy_loss,
    ppo_value_loss,
    token_logprobs,
)
from tutelage.errors import MissingExtraError
from tutelage.labs.episodes import Act, Collector, Environment, Rollout

__all__ = [
    "ACTOR_CRITIC",
    "CLEANRL",
    "LEARNERS",
    "PPO",
    "REINFORCE",
    "REINFORCE_BASELINE",
    "Learned",
    "Settings",
    "Steps",
    "advantages_and_returns",
    "cartpole",
    "evaluate",
    "gradient_samples",
    "learn",
    "network",
    "random_actions",
    "sampler",
    "update_loss",
    "updates",
]


@dataclass(frozen=True, slots=True)
class Settings:
    """What tells one policy gradient from another."""

    environments: int = 8
    window: int | None = 32
    """Steps of each environment in a batch; None is whole episodes, one of each."""

    gamma: float = 0.99
    lam: float = 1.0
    critic: bool = True
    """Whether a critic is learned; without one V = 0."""

    epochs: int = 1
    minibatch: int | None = None
    """Steps per update, shuffled; None is the whole batch."""

    clip: float = 0.2
    value_clip: float | None = None
    whiten: bool = False
    entropy_coef: float = 0.0
    value_coef: float = 1.0
    """Of ½ (V - R)²."""

    learning_rate: float = 3e-3
    anneal: bool = False
    """Learning rate falls to 0 in a straight line."""

    anneal_clip: bool = False
    max_norm: float = 0.5


REINFORCE = Settings(window=None, critic=False)
REINFORCE_BASELINE = Settings(window=None)
ACTOR_CRITIC = Settings(window=16, lam=0.9)
PPO = Settings(
    gamma=0.98,
    lam=0.8,
    epochs=20,
    minibatch=256,
    whiten=True,
    learning_rate=1e-3,
    anneal=True,
    anneal_clip=True,
)
"""RL Baselines3 Zoo: 100,000 steps lead to 500."""

CLEANRL = Settings(
    environments=4,
    window=128,
    lam=0.95,
    epochs=4,
    minibatch=128,
    value_clip=0.2,
    whiten=True,
    entropy_coef=0.01,
    value_coef=0.5,
    learning_rate=2.5e-4,
    anneal=True,
)
"""CleanRL's `ppo.py`: 500,000 steps lead to 490."""

LEARNERS = {
    "REINFORCE": REINFORCE,
    "REINFORCE + baseline": REINFORCE_BASELINE,
    "actor-critic": ACTOR_CRITIC,
    "PPO": PPO,
}


@dataclass(frozen=True, slots=True)
class Learned:
    """The outcome of a training."""

    policy: nn.Module
    critic: nn.Module | None
    episodes: list[tuple[int, float]]
    """(steps so far, sum of rewards) of every episode of the training."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of a rollout that were chosen for one update, each a row of one: `[batch, 1]`."""

    observations: Float[Tensor, "batch 1 features"]
    actions: Int[Tensor, "batch 1"]
    old_logprobs: Float[Tensor, "batch 1"]
    old_values: Float[Tensor, "batch 1"]
    advantages: Float[Tensor, "batch 1"]
    returns: Float[Tensor, "batch 1"]
    mask: Bool[Tensor, "batch 1"] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", torch.ones_like(self.actions, dtype=torch.bool))


def cartpole() -> Environment:
    """Gymnasium's CartPole-v1: four numbers in, left or right out, 1 per step, at most 500.

    Raises:
        MissingExtraError: gymnasium is not installed.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise MissingExtraError("gymnasium", "labs") from error
    made: Environment = gymnasium.make("CartPole-v1", disable_env_checker=True)
    return made


def network(features: int, outputs: int, *, gain: float, width: int = 64) -> nn.Sequential:
    """Two hidden layers of tanh; orthogonal weights, biases 0 (Andrychowicz et al. 2021)."""
    layers = [nn.Linear(features, width), nn.Linear(width, width), nn.Linear(width, outputs)]
    for layer, scale in zip(layers, (2**0.5, 2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def sampler(policy: nn.Module, generator: torch.Generator | None) -> Act:
    """Draws actions from the policy; without a generator takes the most likely one."""

    @torch.no_grad()
    def act(observations: NDArray) -> list[int]:
        logits = policy(torch.from_numpy(observations))
        if generator is None:
            chosen: list[int] = logits.argmax(-1).tolist()
        else:
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            chosen = drawn.squeeze(-1).tolist()
        return chosen

    return act


def random_actions(count: int, *, seed: int) -> Act:
    """Every action alike: what any learner has to beat."""
    random = np.random.default_rng(seed)

    def act(observations: NDArray) -> list[int]:
        drawn: list[int] = random.integers(count, size=len(observations)).tolist()
        return drawn

    return act


def evaluate(
    make: Callable[[], Environment], act: Act, *, episodes: int = 100, seed: int = 10_000
) -> NDArray[np.float64]:
    """Sums of rewards of whole episodes, begun from seeds that no training uses."""
    collector = Collector([make() for _ in range(episodes)], seed=seed)
    collector.episodes(act)
    return np.array([earned for _, earned in collector.finished])


def learn(
    make: Callable[[], Environment],
    settings: Settings,
    *,
    steps: int,
    seed: int,
    features: int = 4,
    actions: int = 2,
) -> Learned:
    """Trains a policy for at least so many steps of the environment."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = network(features, actions, gain=0.01)
        critic = network(features, 1, gain=1.0) if settings.critic else None
    generator = torch.Generator().manual_seed(seed)
    weights = [*policy.parameters(), *(critic.parameters() if critic else ())]
    optimiser = torch.optim.Adam(weights, settings.learning_rate, eps=1e-5)
    # Far from the seeds of the evaluation, whatever the seed.
    collector = Collector([make() for _ in range(settings.environments)], seed=100_000 + 100 * seed)
    act = sampler(policy, generator)
    while collector.steps < steps:
        # 1. Act: episodes, or windows of them.
        if settings.window is None:
            rollout = collector.episodes(act)
        else:
            rollout = collector.window(act, settings.window)
        left = max(0.0, 1 - collector.steps / steps)
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (left if settings.anneal else 1)
        clip = settings.clip * (left if settings.anneal_clip else 1)
        # 2. and 3. Judge what was done, and make it more or less likely.
        for batch in updates(rollout, policy, critic, settings, generator):
            loss = update_loss(batch, policy, critic, settings, max(clip, 1e-6))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, settings.max_norm)
            optimiser.step()
    return Learned(policy, critic, collector.finished)


def advantages_and_returns(
    rollout: Rollout, critic: nn.Module | None, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Advantages, returns and the values they were computed from, `[batch, time]` each.

    A row that was cut is worth V of the state after it; one that ended is worth nothing more.
    """
    with torch.no_grad():
        if critic is None:
            values, bootstrap = torch.zeros_like(rollout.rewards), None
        else:
            values = critic(rollout.observations).squeeze(-1)
            after = critic(rollout.next_observations).squeeze(-1)
            bootstrap = torch.where(rollout.ended, 0, after)
    advantages, returns = gae(
        rollout.rewards, values, rollout.mask, gamma=gamma, lam=lam, bootstrap=bootstrap
    )
    return advantages, returns, values


def updates(
    rollout: Rollout,
    policy: nn.Module,
    critic: nn.Module | None,
    settings: Settings,
    generator: torch.Generator,
) -> Iterator[Steps]:
    """The steps of each update: every step once per epoch, in random order."""
    advantages, returns, values = advantages_and_returns(
        rollout, critic, gamma=settings.gamma, lam=settings.lam
    )
    with torch.no_grad():
        old_logprobs = token_logprobs(policy(rollout.observations), rollout.actions)
    places = rollout.mask.nonzero()
    for _ in range(settings.epochs):
        order = places[torch.randperm(len(places), generator=generator)]
        for chosen in order.split(settings.minibatch or len(order)):
            at = (chosen[:, :1], chosen[:, 1:])
            yield Steps(
                observations=rollout.observations[at],
                actions=rollout.actions[at],
                old_logprobs=old_logprobs[at],
                old_values=values[at],
                advantages=advantages[at],
                returns=returns[at],
            )


def update_loss(
    batch: Steps, policy: nn.Module, critic: nn.Module | None, settings: Settings, clip: float
) -> Tensor:
    """The policy's loss, the critic's, and the entropy bonus."""
    logits = policy(batch.observations)
    logprobs = token_logprobs(logits, batch.actions)
    advantages = batch.advantages
    if settings.whiten:
        advantages = masked_whiten(advantages, batch.mask)
    loss = ppo_policy_loss(logprobs, batch.old_logprobs, advantages, batch.mask, clip=clip).loss
    loss = loss - settings.entropy_coef * masked_mean(entropy(logits), batch.mask)
    if critic is not None:
        value = ppo_value_loss(
            critic(batch.observations).squeeze(-1),
            batch.old_values,
            batch.returns,
            batch.mask,
            clip=settings.value_clip,
        )
        loss = loss + settings.value_coef * value.loss
    return loss


def gradient_samples(
    make: Callable[[], Environment],
    policy: nn.Module,
    critic: nn.Module,
    *,
    batches: int,
    episodes: int = 8,
    gamma: float = 0.99,
    seed: int = 20_000,
) -> tuple[Float[Tensor, "batches weights"], Float[Tensor, "batches weights"]]:
    """Policy gradients of many batches of episodes, without and with the baseline.

        g = mean_t A_t ∇log π(a_t),   A_t = R_t  or  R_t - V(s_t)

    Source: Williams 1992, section 4: a baseline leaves the mean of g as it is and changes its
    variance. Both are computed from the same episodes of a policy that stands still.
    """
    generator = torch.Generator().manual_seed(seed)
    collector = Collector([make() for _ in range(episodes)], seed=seed)
    act = sampler(policy, generator)
    weights = list(policy.parameters())
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for _ in range(batches):
        rollout = collector.episodes(act)
        for baseline, gradients in zip((None, critic), found, strict=True):
            advantages, *_ = advantages_and_returns(rollout, baseline, gamma=gamma, lam=1.0)
            logprobs = token_logprobs(policy(rollout.observations), rollout.actions)
            loss = ppo_policy_loss(
                logprobs, logprobs.detach(), advantages, rollout.mask, clip=0.2
            ).loss
            parts = torch.autograd.grad(loss, weights)
            gradients.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(found[0]), torch.stack(found[1])
