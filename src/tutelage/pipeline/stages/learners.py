"""What each algorithm of the train stage needs beside policy, reference and reward, and its rounds.

TrainStage.algorithm ──> Parts: critic, KL coefficient, baseline, optimisers ──> rounds
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from tutelage.algorithms import AdaptiveKL, FixedKL, KLCoefficient, MovingBaseline
from tutelage.config import (
    GRPOConfig,
    KLConfig,
    OnlineDPOConfig,
    PolicyGradientConfig,
    PPOConfig,
    ReinforceConfig,
    ReinforcePPConfig,
    RLOOConfig,
    RoundsConfig,
    TrainStage,
)
from tutelage.distributed import Cores
from tutelage.errors import ConfigError
from tutelage.generation import Engine, Sampling
from tutelage.models import (
    Adapter,
    AdapterCritic,
    Critic,
    Policy,
    RewardModel,
    SharedCritic,
    WholeModel,
)
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.judges import named_judge
from tutelage.pipeline.stages.preparation import (
    add_adapter,
    generator,
    new_learner,
    trained_part,
)
from tutelage.rewards import Reward
from tutelage.trainers.batches import Shuffled
from tutelage.trainers.curriculum import PromptBatches
from tutelage.trainers.grpo import grpo
from tutelage.trainers.learner import Learner
from tutelage.trainers.online_dpo import AskedPairs, PairJudge, ScoredPairs, online_dpo
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.ppo import ppo
from tutelage.trainers.reinforce import reinforce
from tutelage.trainers.reinforce_pp import reinforce_pp
from tutelage.trainers.rloo import rloo
from tutelage.trainers.round import RoundStep

__all__ = ["Parts", "learner_of", "trained_models"]


@dataclass
class Parts:
    """What a learner learns with; those with a state are saved in every checkpoint."""

    policy: Policy
    reference: Policy
    engine: Engine
    reward: Reward
    learner: Learner
    prompts: PromptBatches
    sampling: Sampling
    critic: Critic | None = None
    kl_coefficient: KLCoefficient | None = None
    baseline: MovingBaseline | None = None

    @classmethod
    def of(
        cls,
        config: RoundsConfig,
        policy: Policy,
        reference: Policy,
        engine: Engine,
        reward: Reward,
        learner: Learner,
        prompts: PromptBatches,
        sampling: Sampling,
        critic: Critic | None,
    ) -> "Parts":
        """Adds the state that the algorithm keeps between rounds."""
        parts = cls(policy, reference, engine, reward, learner, prompts, sampling, critic)
        if isinstance(config, PolicyGradientConfig) and isinstance(config.kl, KLConfig):
            parts.kl_coefficient = _kl_coefficient(config.kl)
        if isinstance(config, ReinforceConfig):
            parts.baseline = MovingBaseline(config.baseline_decay)
        return parts

    @property
    def tracked(self) -> Mapping[str, Any]:
        """Beside policy, learner and prompts: what a checkpoint holds of this algorithm."""
        found = {
            "critic": self.critic,
            "kl_coefficient": self.kl_coefficient,
            "baseline": self.baseline,
        }
        return {name: part for name, part in found.items() if part is not None}

    def rounds(self, config: RoundsConfig, opened: ExitStack) -> Iterator[RoundStep]:
        """The rounds that are left, by the algorithm whose settings these are.

        What they open for themselves is closed with `opened`.
        """
        policy, reference = self.policy, self.reference
        world = (self.engine, self.reward, self.learner, self.prompts)
        beta, sampling, start = self.kl_coefficient, self.sampling, self.prompts.taken
        match config:
            case GRPOConfig():
                # A curriculum, which is not asked for along with extra batches, has none to give.
                more = self.prompts.extra if isinstance(self.prompts, Shuffled) else None
                return grpo(policy, reference, *world, sampling, config, start=start, more=more)
            case OnlineDPOConfig():
                judge = _pairs_of(config, self.reward, opened)
                learning = (self.engine, judge, self.learner, self.prompts)
                return online_dpo(policy, reference, *learning, sampling, config, start=start)
        assert beta is not None, "all others have the KL in the reward"
        match config:
            case PPOConfig():
                assert self.critic is not None, "PPO has a critic"
                critic = self.critic
                return ppo(policy, reference, critic, *world, beta, sampling, config, start=start)
            case RLOOConfig():
                return rloo(policy, reference, *world, beta, sampling, config, start=start)
            case ReinforceConfig():
                baseline = self.baseline
                assert baseline is not None, "made by `of`"
                return reinforce(
                    policy, reference, *world, beta, baseline, sampling, config, start=start
                )
            case ReinforcePPConfig():
                return reinforce_pp(policy, reference, *world, beta, sampling, config, start=start)
        raise AssertionError(f"no learner for {type(config).__name__}")


def _pairs_of(config: OnlineDPOConfig, reward: Reward, opened: ExitStack) -> PairJudge:
    """Who says which completions are better."""
    if config.judge is None:
        return ScoredPairs(reward, config)
    return AskedPairs(named_judge(config.judge, "online_dpo.judge", opened))


def learner_of(
    config: RoundsConfig,
    policy: nn.Module,
    critic: Critic | None,
    context: StageContext,
    cores: Cores | None,
) -> Learner:
    """Optimisers for as many steps as the rounds will take."""
    updates = config.passes * math.ceil(config.updates_per_step / config.batch.minibatch)
    rounds = config.steps
    if isinstance(config, PPOConfig) and critic is not None:
        learned = rounds - config.critic_warmup
        optimizers = {
            "policy": Optimizer(policy, config.policy, learned * updates),
            "value": Optimizer(critic, config.critic, rounds * updates),
        }
    else:
        optimizers = {"policy": Optimizer(policy, config.policy, rounds * updates)}
    return new_learner(context, optimizers, config.batch, generator(context), cores)


def _kl_coefficient(config: KLConfig) -> KLCoefficient:
    if config.target is None:
        return FixedKL(config.coefficient)
    return AdaptiveKL(config.coefficient, config.target, config.horizon)


def trained_models(
    config: TrainStage,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    reward_model: RewardModel | None,
) -> tuple[Adapter | WholeModel, Critic | None]:
    """What is trained of the policy, and the critic of a learner that has one."""
    compute, frozen_layers = policy.backbone.compute, config.learner.frozen_layers
    # First of all: it copies the model as it is, and trains all blocks.
    own = _own_critic(config, policy, tokenizer, reward_model, compute)
    policy.freeze_layers(frozen_layers)
    part = trained_part(config.lora, policy.model, compute, frozen_layers)
    if own is not None or not config.learner.has_critic:
        return part, own
    if config.critic_trunk == "shared" or config.lora is None:
        return part, SharedCritic(policy)
    beside = add_adapter(config.lora, policy.model, compute, frozen_layers, name="value")
    return part, AdapterCritic(policy, beside)


def _own_critic(
    config: TrainStage,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    reward_model: RewardModel | None,
    compute: torch.dtype,
) -> Critic | None:
    if config.critic_trunk != "own" or not config.learner.has_critic:
        return None
    if config.critic == "policy":
        critic = Critic.from_policy(policy.model, compute)
    elif reward_model is None:
        raise ConfigError("critic is 'reward' but reward.model is not set: set critic to 'policy'")
    else:
        if reward_model.tokenizer.get_vocab() != tokenizer.get_vocab():
            raise ConfigError(
                "critic is 'reward' but the reward model has another tokenizer than the policy: "
                "set critic to 'policy'"
            )
        scale = reward_model.scale
        critic = Critic.from_reward_model(
            reward_model.model, mean=scale.mean, std=scale.std, compute=compute
        )
        critic.requires_grad_(True)
    return critic.to(policy.model.device)
