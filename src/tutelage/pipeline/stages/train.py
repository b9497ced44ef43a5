"""Trains a policy against a reward by reinforcement learning.

policy, frozen reference, critic, reward ──algorithm──> rounds ──> metrics, samples, probes
                                                             └──> model/, critic/
"""

from collections.abc import Iterable
from contextlib import ExitStack

from transformers import PreTrainedTokenizerBase

from tutelage.config import TrainStage
from tutelage.data.loaders import load_prompts
from tutelage.generation import ConversationEngine, LocalEngine
from tutelage.models import (
    Adapter,
    Critic,
    WholeModel,
    recompute_activations,
)
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.conversation import conversation_metrics, conversing
from tutelage.pipeline.stages.learners import Parts, learner_of, trained_models
from tutelage.pipeline.stages.preparation import (
    Speed,
    compute_dtype,
    encode,
    generator,
    load_policy,
    sampling_of,
    save_policy,
    share_out,
)
from tutelage.pipeline.stages.probes import Probe
from tutelage.pipeline.stages.reward_ensemble import load_members
from tutelage.pipeline.stages.rewarding import compose_reward, load_reward_model
from tutelage.pipeline.stages.watch import Learning, Watch
from tutelage.tracking.cost import RESPONSE_TOKENS
from tutelage.tracking.metrics import SampleWriter
from tutelage.trainers.alarms import Alarms
from tutelage.trainers.curriculum import batches_of, observed
from tutelage.trainers.round import RoundStep

__all__ = ["run"]

_TOKENS_SO_FAR = "response/tokens_so_far"
_RECENT = 100
"""Rounds at most whose mean sums the stage up: they are in memory and in every checkpoint."""


def run(config: TrainStage, context: StageContext) -> dict[str, float]:
    """Trains for the configured rounds and saves policy and critic."""
    with ExitStack() as opened:
        return _train(config, context, opened)


def _train(config: TrainStage, context: StageContext, opened: ExitStack) -> dict[str, float]:
    compute = compute_dtype(config.learner.precision)
    policy, tokenizer = load_policy(
        context.resolve(config.model, "model"),
        temperature=config.learner.sampling.temperature,
        compute=compute,
        head_tokens=config.learner.batch.head_tokens,
        lora=config.lora,
    )
    reward_model = load_reward_model(config.reward, context, compute)
    cores = share_out(context, policy.model, config.lora)
    members = load_members(config.reward, context, compute)
    reward, settings = compose_reward(config, context, opened, reward_model, cores, members)
    part, critic = trained_models(config, policy, tokenizer, reward_model)
    reference = part.reference(policy)
    if settings.batch.gradient_checkpointing:
        recompute_activations(policy.model)
        if critic is not None:
            recompute_activations(critic.backbone.model)
    source = generator(context, policy.model.device)
    local = LocalEngine(
        policy,
        tokenizer,
        source,
        batch_size=settings.sampling.batch_size,
        notify=context.progress.message,
        cores=cores,
    )
    engine = conversing(config.environment, local, tokenizer, context.seed)
    prompts = encode(
        context,
        tokenizer,
        load_prompts(context.resolve(config.prompts, "rl.jsonl"), config.limit),
        config.max_prompt_tokens,
    )
    sampling = sampling_of(settings.sampling, tokenizer)
    probe = Probe.of(config, context, tokenizer, policy, reference, sampling, cores)
    learner = learner_of(settings, part.weights, critic, context, cores)
    batches = batches_of(settings, prompts, generator(context))
    parts = Parts.of(
        settings, policy, reference, engine, reward, learner, batches, sampling, critic
    )
    watch = Watch(config, context, opened, reward, reward_model, cores) if config.guard else None
    learning = Learning(
        {"policy": part, **parts.tracked, "learner": learner},
        parts.kl_coefficient,
        lambda: engine.load_weights(policy),
    )
    recent: list[dict[str, float]] = []
    alarms = Alarms(settings, context.progress.message)
    with context.checkpoints.track(
        policy=part,
        **parts.tracked,
        learner=learner,
        prompts=batches,
        sampler=source,
        **({"conversations": engine} if isinstance(engine, ConversationEngine) else {}),
        probes=probe.rows if probe else [],
        recent=recent,
        alarms=alarms.rung,
        **(watch.state if watch else {}),
    ) as checkpoints:
        if checkpoints.resumed_at:
            engine.load_weights(policy)
        rounds = observed(parts.rounds(settings, opened), batches, settings)
        _consume(rounds, config, context, probe, recent, alarms, watch, learning)
    _save(config, context, part, critic, tokenizer)
    keys = ("reward/score", "reward/total", "kl/sequence", "response/length", "response/truncated")
    means = {key: sum(row[key] for row in recent) / len(recent) for key in keys}
    watched = watch.finish() if watch else {}
    return means | {RESPONSE_TOKENS: recent[-1][_TOKENS_SO_FAR]} | alarms.summary() | watched


def _save(
    config: TrainStage,
    context: StageContext,
    part: Adapter | WholeModel,
    critic: Critic | None,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    algorithm, settings = config.algorithm.upper(), config.learner
    rounds = (
        f"{settings.steps} rounds of {settings.rows_per_step} completions from {config.model}, "
        f"{settings.pull} {settings.beta:g}"
    )
    save_policy(
        context,
        part.merged(),
        tokenizer,
        f"A language model trained by {algorithm} against a reward.",
        {algorithm: rounds, **part.card},
    )
    part.save(context.folder / "adapter", config.model)
    if critic is not None:
        critic.save(context.folder / "critic")


def _consume(
    rounds: Iterable[RoundStep],
    config: TrainStage,
    context: StageContext,
    probe: "Probe | None",
    recent: list[dict[str, float]],
    alarms: Alarms,
    watch: Watch | None,
    learning: Learning,
) -> None:
    """Logs every round; `recent` keeps the metrics of the last tenth of them, 100 at most.

    The guard, which sees each probe, may change what is learning, or end the rounds.

    Raises:
        TrainingError: an alarm rang that is to stop the stage; it is saved.
    """
    speed = Speed()
    total = config.learner.steps
    with SampleWriter(context.folder / "samples.jsonl", per_step=config.log_samples) as samples:
        if probe is not None and not probe.rows:
            _take(probe, 0, watch, learning)
        for step in rounds:
            done = step.index + 1
            metrics = {"train/loss" if k == "loss" else k: v for k, v in step.metrics.items()}
            before = recent[-1].get(_TOKENS_SO_FAR, 0.0) if recent else 0.0
            metrics["response/tokens"] = float(step.num_tokens)
            metrics[_TOKENS_SO_FAR] = before + step.num_tokens
            metrics["throughput/tokens_per_second"] = speed.read(step.num_tokens)
            metrics |= conversation_metrics(step.completions)
            metrics |= alarms.hear(step.index, metrics)
            context.metrics.log(step.index, metrics)
            context.progress.step(done, total, metrics)
            _log_samples(samples, step)
            recent.append(metrics)
            del recent[: -max(1, min(total // 10, _RECENT))]
            if alarms.stopping:
                context.checkpoints.save(done)
                raise alarms.stop(step.index)
            due = probe is not None and probe.due(done, total)
            if probe is not None and due and not _take(probe, done, watch, learning):
                break
            context.checkpoints.boundary(done)
    if probe is not None:
        probe.write(watch.guard.history if watch else ())


def _take(probe: Probe, step: int, watch: Watch | None, learning: Learning) -> bool:
    """Takes a probe; returns whether the guard lets the training go on."""
    taken = probe.take(step)
    return watch is None or watch.look(probe.first, taken, learning)


def _log_samples(samples: SampleWriter, step: RoundStep) -> None:
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
