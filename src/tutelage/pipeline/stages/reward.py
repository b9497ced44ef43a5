"""Trains a reward model on preferences, in one or several phases.

backbone ──phase 1: AI labels──> ──phase 2: people's labels──> reward model
                                     held-out prompts ──> accuracy, calibration
reference samples ──> mean, sigma, length slope: the units of PPO's reward
"""

import json
import math
from collections.abc import Sequence

from tutelage.config import RewardPhase, RewardStage
from tutelage.data.jsonl import read_jsonl
from tutelage.data.loaders import load_preferences
from tutelage.errors import DataError
from tutelage.evaluation.reward_quality import RewardQuality, length_relation, quality
from tutelage.models import Adapter, RewardModel, WholeModel, recompute_activations
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import (
    Speed,
    compute_dtype,
    device,
    generator,
    held_out_prompts,
    new_learner,
    quantised,
    share_out,
    trained_part,
)
from tutelage.records import Preference, Prompt
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.reward import (
    ComparedAnswers,
    Minibatches,
    encode_comparisons,
    margins,
    train_reward,
)

__all__ = ["run"]


def run(config: RewardStage, context: StageContext) -> dict[str, float]:
    """Trains, measures on held-out prompts, normalises the scores and saves."""
    compute = compute_dtype(config.precision)
    model = RewardModel.load(
        context.resolve(config.model, "model"),
        max_length=config.max_length,
        compute=compute,
        quantised=quantised(config.lora, compute),
    )
    model.to(device())
    part = trained_part(config.lora, model.model, compute)
    if config.batch.gradient_checkpointing:
        recompute_activations(model.model)
    phases = [_load_phase(phase, context) for phase in config.phases]
    training, held_out = _split(phases, config.held_out, context.seed)
    encoded = [_encode(model, rows, context) for rows in training]
    total = sum(
        _steps(phase, rows, config.batch.minibatch)
        for phase, rows in zip(config.phases, encoded, strict=True)
    )
    done = 0
    for phase, rows in zip(config.phases, encoded, strict=True):
        done = _train_phase(config, phase, model, part, rows, context, done, total)
    model = model.with_model(part.merged())
    measured = _measure(model, held_out, context)
    _calibrate(config, model, measured, context)
    model.save(context.folder / "model")
    part.save(context.folder / "adapter", config.model)
    report = measured.to_json()
    (context.folder / "reward.json").write_text(json.dumps(report, indent=2) + "\n")
    return {
        "pairs": float(sum(map(_pairs, encoded))),
        "held_out_accuracy": measured.accuracy.mean,
        "held_out_loss": measured.loss,
        "ece": measured.ece,
        "length_correlation": measured.length_correlation,
        "length_slope": measured.length_slope,
    }


def _load_phase(phase: RewardPhase, context: StageContext) -> list[Preference]:
    paths = context.resolve_all(phase.preferences, "preferences.jsonl")
    return [row for path in paths for row in load_preferences(path)][: phase.limit]


def _split(
    phases: Sequence[Sequence[Preference]], share: float, seed: int
) -> tuple[list[list[Preference]], list[Preference]]:
    """Keeps a share of the last phase's prompts out of every phase."""
    kept = held_out_prompts(phases[-1], share, seed)
    training = [[row for row in rows if row.comparison.prompt.id not in kept] for rows in phases]
    for number, rows in enumerate(training, 1):
        if not rows:
            raise DataError(
                f"phase {number} of the reward model has no preferences left to train on after "
                f"{len(kept)} prompts were held out: give more, or lower held_out"
            )
    return training, [row for row in phases[-1] if row.comparison.prompt.id in kept]


def _encode(
    model: RewardModel, preferences: Sequence[Preference], context: StageContext
) -> list[ComparedAnswers]:
    groups, too_long = encode_comparisons(model, preferences)
    if too_long:
        context.progress.message(
            f"{too_long} of {len(preferences)} pairs exceed {model.max_length} tokens "
            "and are left out"
        )
    if not groups:
        raise DataError(
            f"none of {len(preferences)} pairs fits {model.max_length} tokens: raise max_length"
        )
    return groups


def _pairs(groups: Sequence[ComparedAnswers]) -> int:
    return sum(len(group.pairs) for group in groups)


def _steps(phase: RewardPhase, groups: Sequence[ComparedAnswers], minibatch: int) -> int:
    return max(1, math.ceil(phase.epochs * _pairs(groups) / minibatch))


def _train_phase(
    config: RewardStage,
    phase: RewardPhase,
    model: RewardModel,
    part: Adapter | WholeModel,
    groups: Sequence[ComparedAnswers],
    context: StageContext,
    done: int,
    total: int,
) -> int:
    """One phase with an optimiser of its own; returns the steps done so far."""
    steps = _steps(phase, groups, config.batch.minibatch)
    if context.checkpoints.resumed_at > done + steps:
        return done + steps
    source = generator(context)
    optimizer = Optimizer(part.weights, phase.optimizer, steps)
    cores = share_out(context, model, config.lora)
    learner = new_learner(context, {"reward_model": optimizer}, config.batch, source, cores)
    batches = Minibatches(groups, config.batch.minibatch, steps, source)
    speed = Speed()
    with context.checkpoints.track(model=part, learner=learner, batches=batches) as checkpoints:
        for step in train_reward(
            model,
            learner,
            batches,
            smoothing=config.smoothing,
            centring=config.centring,
            start=batches.taken,
        ):
            metrics = {
                "reward_model/loss": step.metrics["loss"],
                "reward_model/accuracy": step.metrics["accuracy"],
                "reward_model/margin": step.metrics["margin"],
                "reward_model/gradient_norm": step.metrics["reward_model/gradient_norm"],
                "reward_model/learning_rate": step.metrics["reward_model/learning_rate"],
                "train/skipped": step.metrics["train/skipped"],
                "throughput/pairs_per_second": speed.read(config.batch.minibatch),
            }
            context.metrics.log(done + step.index, metrics)
            context.progress.step(done + step.index + 1, total, metrics)
            checkpoints.boundary(done + step.index + 1)
    return done + steps


def _measure(
    model: RewardModel, held_out: Sequence[Preference], context: StageContext
) -> RewardQuality:
    groups, _ = encode_comparisons(model, held_out)
    return quality(*margins(model, groups, cores=share_out(context, model)), seed=context.seed)


def _calibrate(
    config: RewardStage, model: RewardModel, measured: RewardQuality, context: StageContext
) -> None:
    """Sets the scale so that the reference's answers have mean 0 and variance 1."""
    if config.calibration is None:
        return
    prompts, answers, lengths = [], [], []
    for _, row in read_jsonl(context.resolve(config.calibration, "samples.jsonl")):
        completion = row["completions"][0]
        prompts.append(Prompt.from_json(row))
        answers.append(completion["text"])
        lengths.append(len(completion["tokens"]))
    model.with_scale(mean=0.0, std=1.0)
    scores = model.score(prompts, answers, cores=share_out(context, model))
    usable = [(s, n) for s, n in zip(scores, lengths, strict=True) if s is not None]
    relation = length_relation([s for s, _ in usable], [n for _, n in usable])
    model.with_scale(
        mean=relation.mean,
        std=relation.std,
        length_slope=relation.slope,
        length_threshold=relation.threshold,
        floor=relation.floor,
    )
    measured.describe_lengths(relation)
