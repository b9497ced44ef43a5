"""The update under test, taken out of `ppo` itself through its learner."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.core.row import Check
from benchmarks.sides import ours, parity, shapes
from benchmarks.sides.requests import Requests
from benchmarks.sides.tokenizer import words_tokenizer
from tutelage.algorithms import FixedKL
from tutelage.config import BatchConfig, KLConfig, OptimizerConfig, PPOConfig
from tutelage.config.training import PrecisionConfig
from tutelage.distributed import Cores
from tutelage.experience import Experience
from tutelage.generation import FakeEngine, LocalEngine, Sampling
from tutelage.models import Critic, RewardModel, SharedCritic
from tutelage.records import Completion, Prompt, Score
from tutelage.rewards import ModelReward
from tutelage.trainers.learner import Learner
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.ppo import ppo

__all__ = [
    "Actors",
    "CapturedUpdate",
    "CapturingLearner",
    "no_reward",
    "ppo_sampling",
    "ppo_settings",
    "update_parity",
]

TEMPERATURE = 0.7
"""TRL's default."""


def ppo_settings(
    requests: Requests,
    epochs: int,
    dtype: str,
    microbatch_tokens: int,
    learning_rate: float = 3e-6,
    kl: float = 0.05,
    head_tokens: int = BatchConfig().head_tokens,
) -> PPOConfig:
    """TRL's defaults in our words: one minibatch, clips, coefficients, no gradient clipping."""
    optimizer = OptimizerConfig(
        learning_rate=learning_rate, schedule="constant", epsilon=1e-8, max_gradient_norm=1e9
    )
    return PPOConfig(
        steps=1,
        prompts_per_step=requests.count,
        epochs=epochs,
        batch=BatchConfig(
            minibatch=requests.count, microbatch_tokens=microbatch_tokens, head_tokens=head_tokens
        ),
        kl=KLConfig(coefficient=kl),
        clip=0.2,
        value_clip=0.2,
        value_coefficient=0.1,
        lam=0.95,
        value_lam=0.95,
        policy=optimizer,
        critic=optimizer,
        precision=PrecisionConfig(compute=dtype),
    )


def ppo_sampling(requests: Requests) -> Sampling:
    """To the end token, at TRL's temperature."""
    return ours.sampling(requests.answer, ends=True, temperature=TEMPERATURE)


class Actors:
    """Policy, reference, critic, reward model and optimisers of one row."""

    def __init__(
        self,
        requests: Requests,
        epochs: int,
        dtype: str,
        microbatch_tokens: int,
        device: str,
        *,
        seed: int = 0,
        learning_rate: float = 3e-6,
        kl: float = 0.05,
        head_tokens: int = BatchConfig().head_tokens,
        trunk: Literal["own", "shared"] = "own",
        frozen_layers: int = 0,
        critic_shape: str | None = None,
    ) -> None:
        """Random weights from the seeds that the peer takes.

        `critic_shape` is that of a critic with a trunk of its own, the policy's when absent.
        """
        shape, compute = requests.shape, ours.DTYPES[dtype]
        self.settings = ppo_settings(
            requests, epochs, dtype, microbatch_tokens, learning_rate, kl, head_tokens
        )
        self.policy = ours.new_policy(
            shape,
            dtype,
            seed=seed,
            temperature=TEMPERATURE,
            device=device,
            head_tokens=head_tokens,
        )
        self.policy.freeze_layers(frozen_layers)
        self.reference = self.policy.frozen_copy()
        self.critic: Critic = (
            SharedCritic(self.policy)
            if trunk == "shared"
            else Critic(
                shapes.classifier(critic_shape or shape, seed + 2, device, words_of=shape), compute
            ).to(device)
        )
        torch.nn.init.normal_(self.critic.head.weight, std=0.1)
        self.tokenizer = words_tokenizer(shapes.SHAPES[shape]["vocab_size"])
        self.reward_model = RewardModel(
            shapes.classifier(shape, seed + 1, device), self.tokenizer, compute=compute
        )
        self.cores = ours.cores_of(self.policy)
        self.learner = CapturingLearner(
            optimizers={
                "policy": Optimizer(self.policy.model, self.settings.policy, 10_000),
                "value": Optimizer(self.critic, self.settings.critic, 10_000),
            },
            batch=self.settings.batch,
            generator=torch.Generator().manual_seed(seed),
            cores=self.cores or Cores(),
        )

    @property
    def trained(self) -> dict[str, torch.nn.Module]:
        """What an update changes, by the beginning of its parameters' names."""
        return {"policy": self.policy.model, "critic": self.critic}

    def steps(self, requests: Requests, engine: LocalEngine | FakeEngine, reward: Any) -> Any:
        """`ppo` on the same prompts again and again."""
        prompts = ours.encoded(requests.prompts, len(self.tokenizer))
        return ppo(
            self.policy,
            self.reference,
            self.critic,
            engine,
            reward,
            self.learner,
            itertools.repeat(prompts),
            FixedKL(self.settings.kl.coefficient),
            ppo_sampling(requests),
            self.settings,
        )

    def scripted(self, requests: Requests) -> FakeEngine:
        """An engine that gives the rows' answers without sampling."""
        return FakeEngine(
            lambda prompt, _: requests.answers[int(prompt.prompt.id)], policy=self.policy
        )

    def model_reward(self) -> ModelReward:
        """The reward model as the trainer calls it, on text."""
        return ModelReward(self.reward_model, cores=self.cores)


class CapturingLearner(Learner):
    """A learner that can keep what it is asked to fit instead of fitting it."""

    captured: "CapturedUpdate | None" = None
    capturing = False

    def fit(self, loss: Any, batch: Any, plan: Any, **options: Any) -> dict[str, float]:
        """Fits, or keeps the loss, the experience and the plan."""
        if not self.capturing:
            return super().fit(loss, batch, plan, **options)
        self.captured = CapturedUpdate(self, loss, batch, plan)
        raise _Captured

    def capture(self, steps: Any) -> "CapturedUpdate":
        """What the next step of `ppo` would fit."""
        self.capturing = True
        try:
            next(steps)
        except _Captured:
            pass
        finally:
            self.capturing = False
        assert self.captured is not None
        return self.captured


class _Captured(Exception):
    """Ends the step of `ppo` once its update is known."""


class CapturedUpdate:
    """The epochs of one PPO step, to be fitted as often as wanted."""

    def __init__(self, learner: Learner, loss: Any, batch: Experience, plan: Any) -> None:
        """What `Learner.fit` was given."""
        self.learner, self.loss, self.batch, self.plan = learner, loss, batch, plan

    def fit(self) -> None:
        """The epochs, optimiser steps included."""
        self.learner.fit(self.loss, self.batch, self.plan)

    def gradients(
        self, rows: Experience, models: Mapping[str, torch.nn.Module]
    ) -> tuple[float, dict[str, Tensor]]:
        """Loss and gradients of the given rows as one minibatch; no step is taken."""
        found: dict[str, Tensor] = {}
        losses: list[float] = []

        def observe(metrics: Mapping[str, float]) -> None:
            losses.append(metrics["loss"])
            for part, model in models.items():
                for name, weight in model.named_parameters():
                    if weight.grad is not None:
                        found[f"{part}.{name}"] = weight.grad.clone()

        plan = self.learner.plan(rows)
        self.learner.fit(self.loss, rows, plan, observe=observe, stop=lambda _: True)
        return losses[0], found

    def step(self, rows: Experience, observe: Any) -> None:
        """One step on the given rows as one minibatch; `observe` is called ahead of it."""
        self.learner.fit(self.loss, rows, self.learner.plan(rows), observe=observe)


def update_parity(actors: Actors, captured: CapturedUpdate, dtype: str) -> list[Check]:
    """The gate of an update, on up to eight of its rows; ends with a step."""
    rows = both_sides_of_the_clips(captured.batch.select(range(min(8, len(captured.batch)))))
    gradients = parity.update_gate(
        lambda batch: captured.gradients(batch, actors.trained),
        actors.policy,
        actors.critic,
        rows,
        actors.settings,
        dtype,
    )
    optimizers = actors.learner.optimizers.values()
    return [*gradients, *parity.step_gate(lambda look: captured.step(rows, look), optimizers)]


def both_sides_of_the_clips(rows: Experience) -> Experience:
    """Moves old log-probabilities and values by 0.05 or by 0.5.

    That is well inside or well outside the clip range of 0.2, so that both branches of both losses
    are taken, and rounding cannot change which: a gradient jumps there.
    """
    noise = torch.Generator().manual_seed(0)

    def moved(values: Tensor) -> Tensor:
        by = torch.tensor([-0.5, -0.05, 0.05, 0.5])
        which = torch.randint(len(by), values.shape, generator=noise)
        return values + by[which].to(values.device)

    return replace(rows, old_logprobs=moved(rows.old_logprobs), values=moved(rows.values))


def no_reward(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
    """Scores where what they are does not matter."""
    return [Score(float(i % 3) - 1.0) for i in range(len(completions))]
