"""Carries out the trainings of a reward stage, one after the other, each once.

    Job ──phases──> model ──┬── margins on the held-out pairs, and on its own fold
                            ├── scale: mean, sigma, length slope on the reference's answers
                            └── <stage>/model or <stage>/members/i, trained/<name>.json

What a finished training left in the stage's folder is part of every later checkpoint, so an
interrupted stage goes on in the training it was in.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tutelage.config import RewardPhase, RewardStage
from tutelage.data.jsonl import read_jsonl
from tutelage.evaluation.reward_quality import LengthRelation, length_relation
from tutelage.models import Adapter, RewardModel, WholeModel, recompute_activations
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import (
    Speed,
    compute_dtype,
    device,
    new_learner,
    quantised,
    share_out,
    trained_part,
)
from tutelage.pipeline.stages.reward_jobs import Groups, Job, count_pairs, phase_steps
from tutelage.records import Preference, Prompt
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.reward import Minibatches, preference_margins, train_reward

__all__ = ["Backbone", "Outcome", "Trainings", "calibrate", "load_backbone"]


@dataclass
class Backbone:
    """What a training begins with."""

    model: RewardModel
    part: Adapter | WholeModel


@dataclass(frozen=True)
class Outcome:
    """What is known of a finished training."""

    name: str
    pairs: int
    """Judged pairs it was trained on, in all phases."""
    held_out: tuple[float | None, ...]
    """Margins on the held-out preferences."""
    left_out: tuple[float | None, ...] = ()
    """Margins on those of its own fold."""
    phases: tuple[tuple[float | None, ...], ...] = ()
    """Margins on the held-out preferences after each phase but the last."""
    lengths: LengthRelation | None = None

    def write(self, path: Path) -> None:
        """As JSON."""
        row = {**vars(self), "lengths": None if self.lengths is None else vars(self.lengths)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Outcome":
        """Inverse of `write`."""
        row = json.loads(path.read_text(encoding="utf-8"))
        lengths = row["lengths"]
        if lengths is not None:
            points = tuple((int(n), float(s)) for n, s in lengths.pop("points"))
            lengths = LengthRelation(**lengths, points=points)
        return cls(
            row["name"],
            row["pairs"],
            tuple(row["held_out"]),
            tuple(row["left_out"]),
            tuple(map(tuple, row["phases"])),
            lengths,
        )


def load_backbone(config: RewardStage, context: StageContext) -> Backbone:
    """The model of a recipe, ready to be trained; a new score head is drawn by torch's own seed."""
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
    return Backbone(model, part)


def calibrate(
    config: RewardStage, model: RewardModel, context: StageContext
) -> LengthRelation | None:
    """Sets the scale so that the reference's answers have mean 0 and variance 1."""
    if config.calibration is None:
        return None
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
    return relation


class Trainings:
    """Does one job after the other and counts steps over all of them."""

    def __init__(
        self,
        config: RewardStage,
        context: StageContext,
        held_out: Sequence[Preference],
        total: int,
    ) -> None:
        """Args: the stage, the preferences that no job trains on, and the steps of all jobs."""
        self.config = config
        self.context = context
        self.held_out = held_out
        self.total = total
        self.done = 0

    def do(self, job: Job, backbone: Backbone | None = None) -> Outcome:
        """Trains, measures and, where it is wanted, saves a model; or reads what came of it before.

        Args:
            job: what to train.
            backbone: fresh, where it is loaded already.
        """
        folder, steps = self.context.folder, job.steps(self.config)
        record = folder / "trained" / f"{job.name}.json"
        if self.context.checkpoints.resumed_at > self.done + steps:
            self.done += steps
            return Outcome.read(record)
        start = backbone or self._fresh(job)
        phases = [self._phase(job, number, start) for number in range(len(self.config.phases))]
        model = start.model.with_model(start.part.merged())
        outcome = Outcome(
            job.name,
            sum(map(count_pairs, job.phases)),
            tuple(self.margins(model, self.held_out)),
            tuple(self.margins(model, job.left_out)),
            tuple(phase for phase in phases if phase),
            calibrate(self.config, model, self.context) if job.kept else None,
        )
        if job.kept:
            model.save(folder / job.name)
            adapter = "adapter" if job.name == "model" else job.name.replace("members", "adapters")
            start.part.save(folder / adapter, self.config.model)
        outcome.write(record)
        return outcome

    def margins(self, model: RewardModel, preferences: Sequence[Preference]) -> list[float | None]:
        """r_a - r_b of each preference; None for one that is too long."""
        if not preferences:
            return []
        return preference_margins(model, preferences, cores=share_out(self.context, model))

    def _fresh(self, job: Job) -> Backbone:
        ensemble = self.config.ensemble
        shared = ensemble is not None and ensemble.combine == "weights"
        # Weights that were drawn apart have no meaning in the mean.
        torch.manual_seed(self.context.seed if shared else job.seed)
        return load_backbone(self.config, self.context)

    def _phase(self, job: Job, number: int, start: Backbone) -> tuple[float | None, ...]:
        """Trains one phase; held-out margins, where others follow and the model is wanted."""
        phase, groups = self.config.phases[number], job.phases[number]
        record = self.context.folder / "trained" / f"{job.name}-phase-{number + 1}.json"
        trained = self._train(job, phase, groups, start)
        if not job.kept or number + 1 == len(self.config.phases):
            return ()
        if trained or not record.is_file():
            found = self.margins(start.model, self.held_out)
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps(found) + "\n", encoding="utf-8")
        return tuple(json.loads(record.read_text(encoding="utf-8")))

    def _train(self, job: Job, phase: RewardPhase, groups: Groups, start: Backbone) -> bool:
        """One phase with an optimiser of its own; whether there was anything left to do."""
        config, context = self.config, self.context
        steps = phase_steps(phase, groups, config.batch.minibatch)
        done, self.done = self.done, self.done + steps
        if context.checkpoints.resumed_at > self.done:
            return False
        source = torch.Generator().manual_seed(job.seed)
        optimizer = Optimizer(start.part.weights, phase.optimizer, steps)
        cores = share_out(context, start.model, config.lora)
        learner = new_learner(context, {"reward_model": optimizer}, config.batch, source, cores)
        batches = Minibatches(groups, config.batch.minibatch, steps, source)
        speed = Speed()
        with context.checkpoints.track(
            model=start.part, learner=learner, batches=batches
        ) as checkpoints:
            for step in train_reward(
                start.model,
                learner,
                batches,
                smoothing=config.smoothing,
                centring=config.centring,
                tie_threshold=config.tie_threshold,
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
                context.progress.step(done + step.index + 1, self.total, metrics)
                checkpoints.boundary(done + step.index + 1)
        return True
