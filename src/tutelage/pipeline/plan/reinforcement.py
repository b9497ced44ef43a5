"""The train stage: several models at once, in four phases that follow each other.

policy, reference, critic (PPO), reward model, optimisers ──── all the time
cache of keys and values ────────── rollout
passes without gradients ────────── scoring
gradients, activations, logits ──── update
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tutelage.config import (
    GRPOConfig,
    KLConfig,
    PolicyGradientConfig,
    PPOConfig,
    RoundsConfig,
    TrainStage,
)
from tutelage.config.training import READ_TOKENS
from tutelage.pipeline.plan.memory import (
    FLOAT,
    OPTIMIZER_STATE,
    Pass,
    adapter_weights,
    decoder_copy,
    format_bytes,
    passing_activations,
    reading_logits,
    rollout,
)
from tutelage.pipeline.plan.parts import ModelBytes, Phase, Place, StagePlan, Work
from tutelage.pipeline.plan.rows import Rows, tokens_of
from tutelage.pipeline.plan.sizes import ModelSize
from tutelage.pipeline.plan.training import (
    MicroBatches,
    Trained,
    merging_phase,
    model_bytes,
    trained_part,
    update_phase,
)
from tutelage.pipeline.plan.work import (
    decoding_work,
    optimizer_work,
    scoring_work,
    training_work,
)

__all__ = ["RewardSizes", "plan_train"]

_LOSS_COPIES = 6.25
"""Logits' size: logits, softmax, and four tensors and a mask of the entropy."""
_ANCHOR_COPIES = 6.0
"""The same of each KL to another policy: its logits, two softmaxes and what they form."""


@dataclass(frozen=True)
class RewardSizes:
    """The reward models of a train stage."""

    model: ModelSize | None = None
    """That which is rewarded, or stands for its ensemble; None where functions alone reward."""
    members: tuple[ModelSize, ...] = ()
    """Of the ensemble; they score every answer in place of the model."""
    signals: tuple[ModelSize, ...] = ()
    """Held out by the guard; they score the answers of probes."""

    @property
    def scorers(self) -> tuple[ModelSize, ...]:
        """Models that score every answer."""
        return self.members or (() if self.model is None else (self.model,))

    def kept(self) -> Iterator[ModelBytes]:
        """What they weigh."""
        named = {
            "reward model": () if self.model is None else (self.model,),
            "members": self.members,
            "held-out signals": self.signals,
        }
        for role, sizes in named.items():
            total = sum(size.backbone + size.hidden for size in sizes)
            source = ", ".join(dict.fromkeys(size.source for size in sizes))
            if sizes:
                yield ModelBytes(role, source, total, FLOAT * total)


class _Sizes:
    """The lengths and counts that everything else follows from."""

    def __init__(self, config: TrainStage, size: ModelSize) -> None:
        rounds = config.learner
        self.answer = min(rounds.sampling.max_tokens, size.context - 1)
        self.prompt = max(1, min(config.max_prompt_tokens, size.context - self.answer))
        talk = config.environment
        if talk is not None:
            # All but a conversation's last answer is the last answer's prompt.
            self.prompt = max(1, min(talk.max_tokens, size.context) - self.answer)
        self.turns = 1 if talk is None else talk.max_turns
        self.length = self.prompt + self.answer
        self.prompts, self.rows = rounds.prompts_per_step, rounds.rows_per_step
        if config.limit is not None:
            self.prompts = min(self.prompts, max(1, config.limit))
        beside = rounds.completions_per_row
        # A prompt that is there alone still makes a row.
        self.updates = min(rounds.updates_per_step, self.rows)
        self.cut = MicroBatches.of(
            rounds.batch, min(rounds.batch.minibatch, self.updates), beside * self.length
        )
        self.written = min(self.turns * self.answer, self.length - 1)
        self.answers = self.cut.rows * beside * self.written
        self.learned = self.updates * beside
        self.frozen = min(rounds.frozen_layers, size.layers)


def plan_train(
    name: str,
    config: TrainStage,
    size: ModelSize,
    reward: RewardSizes,
    place: Place,
    data: Rows,
) -> StagePlan:
    """A policy against a reward.

    Args:
        name: of the stage.
        config: of the stage.
        size: of the policy.
        reward: of the reward models.
        place: where.
        data: the prompts.
    """
    rounds, at = config.learner, _Sizes(config, size)
    compute = rounds.precision.compute
    adapted = config.lora is not None
    trained = trained_part(
        size, size.parameters, config.lora, compute, place.kind, frozen=at.frozen
    )
    cores = place.sharing(size.parameters, adapted=adapted)
    policy = model_bytes("policy", size, size.parameters, trained, rounds.policy)
    decoders = 1 if config.probes is None else 2
    policy = replace(policy, decoder=decoders * decoder_copy(size, compute))
    critic, critic_pass = _critic(config, size, reward.model, at)
    models = [policy, *_references(config, size, trained)]
    if critic is not None:
        models.append(critic)
    models += reward.kept()
    gradients = policy.gradients + (0 if critic is None else critic.gradients)
    blocks = size.layers - at.frozen
    checkpointing = rounds.batch.gradient_checkpointing
    own = Pass(size, at.cut.tokens, compute, blocks, checkpointing, adapted)
    logits = _logits(rounds, size, at)
    passes = (own,) if critic_pass is None else (own, critic_pass)
    update = update_phase(passes, gradients, logits, at.cut, place.kind, cores)
    states = _lower_states(size, at)
    phases = [
        _rollout(config, size, at, place),
        _scoring(rounds, size, reward, at, states, cores),
        Phase(update.name, {**update.parts, **states}),
    ]
    if adapted:
        phases.append(merging_phase(size, phases[-1]))
    # Answers grow and shrink in training: what the policy says at first tells little.
    prompt, answer = tokens_of(replace(data, answer=None), size.vocabulary, at.prompt, at.answer)

    # All but a conversation's last answer is the last answer's prompt.
    prompt = min(prompt + (at.turns - 1) * answer, at.prompt)

    def work(prompt: float, answer: float) -> tuple[Work, ...]:
        return _work(config, size, reward, at, trained, critic, prompt, answer, place)

    return StagePlan(
        name=name,
        kind=config.kind,
        models=tuple(models),
        phases=tuple(phases),
        unit="round",
        units=rounds.steps,
        work=work(at.prompt, at.answer),
        size=size,
        cores=cores,
        typical=work(prompt, answer),
    )


def _references(config: TrainStage, size: ModelSize, trained: Trained) -> list[ModelBytes]:
    """What holds the policy; with adapters, its own weights do so without a copy."""
    adapted = config.lora is not None
    copied = 0 if adapted else trained.weights
    found = [ModelBytes("reference", size.source, copied, FLOAT * copied)]
    rounds = config.learner
    kl = rounds.kl if isinstance(rounds, PolicyGradientConfig) else None
    if isinstance(kl, KLConfig) and kl.old_policy_coefficient:
        found.append(
            ModelBytes("old policy", size.source, trained.weights, FLOAT * trained.weights)
        )
    return found


def _critic(
    config: TrainStage, size: ModelSize, reward: ModelSize | None, at: _Sizes
) -> tuple[ModelBytes | None, Pass | None]:
    """The critic, if there is one, and the pass of its own that it needs, if any."""
    ppo = config.learner
    if not isinstance(ppo, PPOConfig):
        return None, None
    compute = ppo.precision.compute
    start = reward if config.critic == "reward" and reward is not None else size
    trunk = config.critic_trunk
    checkpointing = ppo.batch.gradient_checkpointing
    own = Pass(start, at.cut.tokens, compute, checkpointing=checkpointing)
    if trunk == "own":
        total = start.backbone + start.hidden + 1
        trained = Trained(total, FLOAT * total)
        return model_bytes("critic", start, total, trained, ppo.critic), own
    count = size.hidden + 1
    if trunk == "adapter" and config.lora is not None:
        count += adapter_weights(size, config.lora.rank, config.lora.targets)
        own = replace(own, adapted=True)
    state = OPTIMIZER_STATE[ppo.critic.algorithm] * count
    model = ModelBytes("critic", size.source, count, FLOAT * count, FLOAT * count, state)
    return model, own if trunk == "adapter" else None


def _logits(rounds: RoundsConfig, size: ModelSize, at: _Sizes) -> int:
    copies = _LOSS_COPIES + _ANCHOR_COPIES * _anchors(rounds)
    head_tokens = rounds.batch.head_tokens
    return reading_logits(size, at.answers, head_tokens, copies)


def _anchors(rounds: RoundsConfig) -> int:
    """Policies whose distributions over the whole vocabulary the loss reads."""
    match rounds:
        case GRPOConfig():
            return int(rounds.kl.estimator == "full" and rounds.kl.coefficient > 0)
        case PolicyGradientConfig(kl=KLConfig() as kl):
            return (kl.loss_coefficient > 0) + (kl.old_policy_coefficient > 0)
    return 0


def _lower_states(size: ModelSize, at: _Sizes) -> dict[str, int]:
    if not at.frozen:
        return {}
    return {"states of frozen blocks": FLOAT * at.rows * at.length * size.hidden}


def _rollout(config: TrainStage, size: ModelSize, at: _Sizes, place: Place) -> Phase:
    sampling = config.learner.sampling
    together = min(sampling.batch_size, at.rows)
    if config.lora is None:
        together = place.decoded_together(size.parameters, at.rows, sampling.batch_size)
    prompts = min(at.prompts, max(1, together // sampling.samples_per_prompt))
    compute = config.learner.precision.compute
    cache, beside = rollout(size, prompts, together, at.prompt, at.answer, compute, place.kind)
    return Phase("rollout", {"KV cache": cache, "activations": beside})


def _scoring(
    rounds: RoundsConfig,
    size: ModelSize,
    reward: RewardSizes,
    at: _Sizes,
    states: dict[str, int],
    cores: int,
) -> Phase:
    passes = [min(cores, at.cut.count) * passing_activations(size, at.cut.tokens)]
    tokens = min(cores * READ_TOKENS, at.rows * at.length)
    passes += [passing_activations(scorer, tokens) for scorer in reward.scorers]
    head_tokens = rounds.batch.head_tokens
    logits = reading_logits(size, at.answers, head_tokens, 2.0)
    return Phase("scoring", {"activations": max(passes), "logits": logits, **states})


def _work(
    config: TrainStage,
    size: ModelSize,
    reward: RewardSizes,
    at: _Sizes,
    trained: Trained,
    critic: ModelBytes | None,
    prompt: float,
    answer: float,
    place: Place,
) -> tuple[Work, ...]:
    """Of one round whose rows have the given lengths."""
    rounds, compute = config.learner, config.learner.precision.compute
    share = 1.0 - at.frozen / max(1, size.layers)
    checkpointing, length = rounds.batch.gradient_checkpointing, prompt + answer
    written = min(at.turns * answer, length - 1)
    steps = rounds.passes * -(-at.updates // rounds.batch.minibatch)
    packing = Work(0.0, 2.0 * (FLOAT + format_bytes(compute)) * (size.linear + size.head))
    batch = rounds.sampling.batch_size

    def decoding(prompts: int, rows: int) -> tuple[Work, ...]:
        shares = place.shares(size.parameters, rows) if config.lora is None else 1
        return decoding_work(size, prompts, rows, prompt, answer, batch, compute, at.answer, shares)

    work = [
        packing,
        *decoding(at.prompts, at.rows) * at.turns,
        scoring_work(size, at.rows, length, written, compute),
        scoring_work(size, at.rows, length, written, compute),
    ]
    if config.probes is not None:
        # A probe is answered and held against the reference every few rounds.
        count, often = config.probe_count, 1.0 / config.probe_every
        probe = (*decoding(count, count), scoring_work(size, 2 * count, length, answer, compute))
        read = [scoring_work(each, count, length, 0, compute) for each in reward.signals]
        work += [part.times(often) for part in (*probe, *read)]
    work += [scoring_work(scorer, at.rows, length, 0, compute) for scorer in reward.scorers]
    rows = rounds.passes * at.learned
    work += training_work(
        size, rows, length, written, compute, trained.weights, checkpointing, share
    )
    if critic is not None and config.critic_trunk != "shared":
        work.append(scoring_work(size, at.rows, length, 0, compute))
        work += training_work(size, rows, length, 0, compute, critic.parameters, checkpointing)
    valued = 0 if critic is None else critic.gradients // FLOAT
    for weights in (trained.weights, valued):
        step = optimizer_work(weights)
        work.append(Work(steps * step.flops, steps * step.bytes))
    return tuple(work)
