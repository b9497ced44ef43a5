"""Trains a policy against a reward by reinforcement learning.

policy, frozen reference, critic, reward ──ppo──> steps ──> metrics, samples, probes
                                                      └──> model/, critic/
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from tutelage.algorithms import AdaptiveKL, FixedKL, KLCoefficient
from tutelage.config import KLConfig, LengthPenaltyConfig, PPOConfig, RewardConfig, TrainStage
from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import load_prompts
from tutelage.distributed import Cores
from tutelage.errors import ConfigError
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import (
    Adapter,
    AdapterCritic,
    Critic,
    Policy,
    RewardModel,
    RewardScale,
    SharedCritic,
    WholeModel,
    recompute_activations,
)
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import (
    Speed,
    add_adapter,
    compute_dtype,
    encode,
    generator,
    load_policy,
    new_learner,
    sampling_of,
    save_policy,
    share_out,
    trained_part,
)
from tutelage.records import EncodedPrompt
from tutelage.rewards import LengthPenalty, ModelReward, Reward, Sum, load_function
from tutelage.tracking.metrics import SampleWriter
from tutelage.trainers.alarms import Alarms
from tutelage.trainers.batches import Shuffled
from tutelage.trainers.divergence import sequence_kl
from tutelage.trainers.evidence import sample
from tutelage.trainers.finite import FiniteGuard
from tutelage.trainers.learner import Learner
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.ppo import PPOStep, ppo

__all__ = ["run"]

_RECENT = 100
"""Rounds at most whose mean sums the stage up: they are in memory and in every checkpoint."""


def run(config: TrainStage, context: StageContext) -> dict[str, float]:
    """Trains for the configured rounds and saves policy and critic."""
    compute = compute_dtype(config.ppo.precision)
    policy, tokenizer = load_policy(
        context.resolve(config.model, "model"),
        temperature=config.ppo.sampling.temperature,
        compute=compute,
        head_tokens=config.ppo.batch.head_tokens,
        lora=config.lora,
    )
    reward_model = _reward_model(config, context, compute)
    cores = share_out(context, policy.model, config.lora)
    reward, settings = _reward(config.reward, reward_model, config.ppo, cores)
    part, critic = _trained(config, policy, tokenizer, reward_model)
    reference = part.reference(policy)
    if settings.batch.gradient_checkpointing:
        recompute_activations(policy.model)
        recompute_activations(critic.backbone.model)
    source = generator(context, policy.model.device)
    engine = LocalEngine(
        policy,
        tokenizer,
        source,
        batch_size=settings.sampling.batch_size,
        notify=context.progress.message,
        cores=cores,
    )
    prompts = encode(
        context,
        tokenizer,
        load_prompts(context.resolve(config.prompts, "rl.jsonl"), config.limit),
        config.max_prompt_tokens,
    )
    sampling = sampling_of(settings.sampling, tokenizer)
    probe = _Probe.of(config, context, tokenizer, policy, reference, sampling)
    learner = _learner(settings, part.weights, critic, context, cores)
    batches = Shuffled(prompts, settings.prompts_per_step, settings.steps, generator(context))
    kl_coefficient = _kl_coefficient(settings.kl)
    recent: list[dict[str, float]] = []
    alarms = Alarms(settings, context.progress.message)
    with context.checkpoints.track(
        policy=part,
        critic=critic,
        learner=learner,
        prompts=batches,
        sampler=source,
        kl_coefficient=kl_coefficient,
        probes=probe.rows if probe else [],
        recent=recent,
        alarms=alarms.rung,
    ) as checkpoints:
        if checkpoints.resumed_at:
            engine.load_weights(policy)
        rounds = ppo(
            policy,
            reference,
            critic,
            engine,
            reward,
            learner,
            batches,
            kl_coefficient,
            sampling,
            settings,
            start=batches.taken,
        )
        _consume(rounds, config, context, probe, recent, alarms)
    _save(config, context, part, critic, tokenizer)
    keys = ("reward/score", "reward/total", "kl/sequence", "response/length", "response/truncated")
    means = {key: sum(row[key] for row in recent) / len(recent) for key in keys}
    return means | alarms.summary()


def _save(
    config: TrainStage,
    context: StageContext,
    part: Adapter | WholeModel,
    critic: Critic,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    algorithm, settings = config.algorithm.upper(), config.ppo
    rounds = (
        f"{settings.steps} rounds of {settings.rows_per_step} completions from {config.model}, "
        f"KL coefficient {settings.kl.coefficient:g}"
    )
    save_policy(
        context,
        part.merged(),
        tokenizer,
        f"A language model trained by {algorithm} against a reward.",
        {algorithm: rounds, **part.card},
    )
    part.save(context.folder / "adapter", config.model)
    critic.save(context.folder / "critic")


def _consume(
    rounds: Iterable[PPOStep],
    config: TrainStage,
    context: StageContext,
    probe: "_Probe | None",
    recent: list[dict[str, float]],
    alarms: Alarms,
) -> None:
    """Logs every round; `recent` keeps the metrics of the last tenth of them, 100 at most.

    Raises:
        TrainingError: an alarm rang that is to stop the stage; it is saved.
    """
    speed = Speed()
    total = config.ppo.steps
    with SampleWriter(context.folder / "samples.jsonl", per_step=config.log_samples) as samples:
        if probe is not None and not probe.rows:
            probe.take(0)
        for step in rounds:
            done = step.index + 1
            metrics = {"train/loss" if k == "loss" else k: v for k, v in step.metrics.items()}
            tokens = int(step.experience.response_mask.sum())
            metrics["throughput/tokens_per_second"] = speed.read(tokens)
            metrics |= alarms.hear(step.index, metrics)
            context.metrics.log(step.index, metrics)
            context.progress.step(done, total, metrics)
            _log_samples(samples, step)
            recent.append(metrics)
            del recent[: -max(1, min(total // 10, _RECENT))]
            if alarms.stopping:
                context.checkpoints.save(done)
                raise alarms.stop(step.index)
            if probe is not None and probe.due(done, total):
                probe.take(done)
            context.checkpoints.boundary(done)
    if probe is not None:
        probe.write()


def _log_samples(samples: SampleWriter, step: PPOStep) -> None:
    experience = step.experience
    assert experience.old_logprobs is not None and experience.ref_logprobs is not None
    divergence = (experience.old_logprobs - experience.ref_logprobs).sum(1).tolist()
    samples.log(
        step.index,
        [prompt.prompt for prompt in step.prompts],
        step.completions,
        step.scores,
        divergence,
    )


def _reward_model(
    config: TrainStage, context: StageContext, compute: torch.dtype
) -> RewardModel | None:
    if config.reward.model is None:
        return None
    model = RewardModel.load(context.resolve(config.reward.model, "model"), compute=compute)
    return model.eval().requires_grad_(False)


def _reward(
    config: RewardConfig,
    model: RewardModel | None,
    ppo_config: PPOConfig,
    cores: Cores | None = None,
) -> tuple[Reward, PPOConfig]:
    """The composed reward, and the settings with their `auto` values filled in."""
    scale = model.scale if model is not None else RewardScale()
    parts: dict[str, tuple[float, Reward]] = {}
    if model is not None:
        parts["model"] = (1.0, ModelReward(model, clip=config.clip, cores=cores))
    for path, weight in config.functions.items():
        function = load_function(path)
        parts[function.name] = (weight, function)
    if config.length is not None:
        parts["length"] = (1.0, _length_penalty(config.length, model))
    truncation = ppo_config.truncation
    if truncation.value == "auto":
        # One sigma below the worst answer of the reference: no length can outbid it.
        truncation = truncation.model_copy(update={"value": scale.floor - 1.0})
    return Sum(parts), ppo_config.model_copy(update={"truncation": truncation})


def _length_penalty(config: LengthPenaltyConfig, model: RewardModel | None) -> LengthPenalty:
    """Its `auto` values come from what the reward model was measured to pay for length."""
    coefficient, threshold = config.coefficient, config.threshold
    if "auto" in (coefficient, threshold) and model is None:
        raise ConfigError(
            "reward.length is auto, which reads the reward model's measured slope, but "
            "reward.model is not set: give coefficient and threshold as numbers"
        )
    scale = model.scale if model is not None else RewardScale()
    paid = max(0.0, config.slope_factor * scale.length_slope)
    return LengthPenalty(
        paid if coefficient == "auto" else coefficient,
        round(scale.length_threshold if threshold == "auto" else threshold),
    )


def _trained(
    config: TrainStage,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    reward_model: RewardModel | None,
) -> tuple[Adapter | WholeModel, Critic]:
    """What is trained of the policy, and the critic."""
    compute, frozen_layers = policy.backbone.compute, config.ppo.frozen_layers
    # First of all: it copies the model as it is, and trains all blocks.
    own = _own_critic(config, policy, tokenizer, reward_model, compute)
    policy.freeze_layers(frozen_layers)
    part = trained_part(config.lora, policy.model, compute, frozen_layers)
    if own is not None:
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
    if config.critic_trunk != "own":
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


def _learner(
    config: PPOConfig,
    policy: nn.Module,
    critic: Critic,
    context: StageContext,
    cores: Cores | None,
) -> Learner:
    updates = config.epochs * math.ceil(config.rows_per_step / config.batch.minibatch)
    rounds = config.steps
    optimizers = {
        "policy": Optimizer(policy, config.policy, (rounds - config.critic_warmup) * updates),
        "value": Optimizer(critic, config.critic, rounds * updates),
    }
    return new_learner(context, optimizers, config.batch, generator(context), cores)


def _kl_coefficient(config: KLConfig) -> KLCoefficient:
    if config.target is None:
        return FixedKL(config.coefficient)
    return AdaptiveKL(config.coefficient, config.target, config.horizon)


@dataclass
class _Probe:
    """Answers to the same prompts every few rounds, for the evaluation to judge."""

    prompts: Sequence[EncodedPrompt]
    engine: LocalEngine
    reference: Policy
    sampling: Sampling
    seed: int
    every: int
    rows: list[dict[str, Any]]
    context: StageContext

    @classmethod
    def of(
        cls,
        config: TrainStage,
        context: StageContext,
        tokenizer: PreTrainedTokenizerBase,
        policy: Policy,
        reference: Policy,
        sampling: Sampling,
    ) -> "_Probe | None":
        """The probe a recipe asks for."""
        if config.probes is None:
            return None
        path = context.resolve(config.probes, "held_out.jsonl")
        prompts = encode(context, tokenizer, load_prompts(path, config.probe_count))
        engine = LocalEngine(
            policy,
            tokenizer,
            generator(context, policy.model.device),
            notify=context.progress.message,
            cores=share_out(context, policy.model, config.lora),
        )
        return cls(
            prompts, engine, reference, sampling, context.seed, config.probe_every, [], context
        )

    def due(self, done: int, total: int) -> bool:
        """Whether a probe is taken after `done` of `total` rounds."""
        return done % self.every == 0 or done == total

    def take(self, step: int) -> None:
        """Answers the probe's prompts with the policy as it is, always from the same seed."""
        self.engine.generator.manual_seed(self.seed)
        sampling = Sampling(
            self.sampling.stop_tokens, self.sampling.max_tokens, self.sampling.temperature
        )
        guard = FiniteGuard(self.context.evidence)
        completions = sample(self.engine, self.prompts, sampling, guard)
        divergence = sequence_kl(self.reference, self.prompts, completions, cores=self.engine.cores)
        for prompt, completion, kl in zip(self.prompts, completions, divergence, strict=True):
            self.rows.append(
                {
                    **prompt.prompt.to_json(),
                    "step": step,
                    "text": completion.text,
                    "ended": not completion.truncated,
                    "length": len(completion.tokens),
                    "kl": kl,
                }
            )

    def write(self) -> None:
        """Writes all probes."""
        write_jsonl(self.context.folder / "probes.jsonl", self.rows)
