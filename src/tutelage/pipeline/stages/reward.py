"""Trains reward models on preferences, in one or several phases, and measures them.

backbone ──phase 1: AI labels──> ──phase 2: people's labels──> reward model
                                     held-out prompts ──> accuracy, calibration, length, baselines
reference samples ──> mean, sigma, length slope: the units of PPO's reward
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from tutelage.config import RewardPhase, RewardStage
from tutelage.errors import DataError
from tutelage.evaluation.folds import agreement, disagreement_finds_errors
from tutelage.evaluation.intervals import clustered_mean
from tutelage.evaluation.reward_quality import LengthRelation, quality
from tutelage.evaluation.reward_report import measure_pairs
from tutelage.evaluation.scored_pairs import ScoredPairs
from tutelage.feedback.exchange import load_feedback
from tutelage.feedback.reliability import Annotator, annotators
from tutelage.models import RewardModel
from tutelage.models.weight_average import average_weights
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import device, held_out_prompts
from tutelage.pipeline.stages.reward_jobs import Job, count_pairs, jobs_of
from tutelage.pipeline.stages.reward_training import (
    Outcome,
    Trainings,
    calibrate,
    load_backbone,
)
from tutelage.records import Preference
from tutelage.trainers.reward import ComparedAnswers, LabelTerms, encode_comparisons

__all__ = ["run"]


def run(config: RewardStage, context: StageContext) -> dict[str, float]:
    """Trains, measures on held-out prompts, normalises the scores and saves."""
    if config.ensemble is not None:
        torch.manual_seed(context.seed)
    backbone = load_backbone(config, context)
    phases = [_load_phase(phase, context) for phase in config.phases]
    training, held_out = _split(phases, config.held_out, context.seed)
    reliable = _reliability(config, training)
    training = [[_weighed(row, reliable) for row in rows] for rows in training]
    encoded = [
        _encode(backbone.model, rows, _terms(config, phase), context)
        for phase, rows in zip(config.phases, training, strict=True)
    ]
    jobs = jobs_of(config, encoded, training[-1], context.seed)
    trainings = Trainings(config, context, held_out, sum(job.steps(config) for job in jobs))
    outcomes = [
        trainings.do(job, backbone if number == 0 else None) for number, job in enumerate(jobs)
    ]
    margins, lengths = _final_model(config, context, trainings, outcomes)
    record = _record(jobs, outcomes, ScoredPairs.of(held_out, margins), training, held_out, context)
    record = _with_lengths(record, lengths)
    if reliable:
        record["annotators"] = {name: asdict(row) for name, row in reliable.items()}
    (context.folder / "reward.json").write_text(json.dumps(record, indent=2) + "\n")
    for line in (*_gains(record), *record["held_out"].get("verdict", ())):
        context.progress.message(f"the reward model {line}")
    return {
        "pairs": float(sum(map(count_pairs, encoded))),
        "held_out_accuracy": record["held_out_accuracy"]["mean"],
        "held_out_loss": record["held_out_loss"],
        "ece": record["ece"],
        # Without answers to calibrate on, nothing is known of lengths.
        **{key: record[key] for key in ("length_correlation", "length_slope") if key in record},
    }


def _gains(record: Mapping[str, Any]) -> Iterator[str]:
    """What each phase after the first was worth."""
    for row in record.get("phases", ())[1:]:
        points = [100.0 * row["gain"][name] for name in ("mean", "low", "high")]
        yield "gained {:+.1f} points of held-out accuracy [{:.1f}, {:.1f}] in phase {}".format(
            *points, row["phase"]
        )


def _load_phase(phase: RewardPhase, context: StageContext) -> list[Preference]:
    paths = context.resolve_all(phase.preferences, "preferences.jsonl")
    return [row for path in paths for row in load_feedback(path)][: phase.limit]


def _reliability(
    config: RewardStage, training: Sequence[Sequence[Preference]]
) -> dict[str, Annotator]:
    """What each annotator's judgements of all phases are worth; nothing where nobody asks."""
    if config.reliability == "none":
        return {}
    return annotators([row for rows in training for row in rows], config.reliability)


def _weighed(row: Preference, reliable: Mapping[str, Annotator]) -> Preference:
    if not reliable:
        return row
    return replace(row, weight=row.weight * reliable[row.annotator].weight)


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


def _terms(config: RewardStage, phase: RewardPhase) -> LabelTerms:
    return LabelTerms(phase.weights, phase.errors, config.strength_margin)


def _encode(
    model: RewardModel, preferences: Sequence[Preference], terms: LabelTerms, context: StageContext
) -> list[ComparedAnswers]:
    groups, too_long = encode_comparisons(model, preferences, terms)
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


def _final_model(
    config: RewardStage, context: StageContext, trainings: Trainings, outcomes: Sequence[Outcome]
) -> tuple[list[float | None], LengthRelation | None]:
    """Writes `model` where the trainings have not, and says what it makes of the held-out pairs.

    An ensemble of scores is judged as a whole, by its mean.
    """
    ensemble = config.ensemble
    if ensemble is None:
        return list(outcomes[0].held_out), outcomes[0].lengths
    members = outcomes[: ensemble.members]
    target = context.folder / "model"
    if ensemble.combine == "scores":
        shutil.copytree(context.folder / members[0].name, target, dirs_exist_ok=True)
        return _mean_margins([member.held_out for member in members]), members[0].lengths
    loaded = [RewardModel.load(context.folder / member.name) for member in members]
    model = loaded[0]
    average_weights(model.model, [member.model for member in loaded])
    model.to(device())
    lengths = calibrate(config, model, context)
    model.save(target)
    return trainings.margins(model, trainings.held_out), lengths


def _mean_margins(columns: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Of each pair; what is too long for one member is so for all."""
    return [
        None if None in row else float(np.mean([margin for margin in row if margin is not None]))
        for row in zip(*columns, strict=True)
    ]


def _record(
    jobs: Sequence[Job],
    outcomes: Sequence[Outcome],
    pairs: ScoredPairs,
    training: Sequence[Sequence[Preference]],
    held_out: Sequence[Preference],
    context: StageContext,
) -> dict[str, Any]:
    """What `reward.json` holds, but for the length of the reference's answers."""
    seed = context.seed
    measured = quality(pairs.margins.tolist(), pairs.labels.tolist(), seed=seed)
    every = [row for rows in training for row in rows]
    record = measured.to_json() | {"held_out": measure_pairs(pairs, every, seed=seed)}
    members = [outcome for outcome in outcomes if outcome.name.startswith("members/")]
    if members:
        record["members"] = _members(members, held_out, pairs)
    validated = [number for number, job in enumerate(jobs) if job.left_out]
    if validated:
        record["folds"] = _folds(jobs, outcomes, validated, held_out, seed)
    curve = [
        {"pairs": outcome.pairs, "accuracy": _accuracy(held_out, outcome, seed)}
        for outcome in outcomes
        if outcome.name.startswith("curve/") or outcome.name == "model"
    ]
    if len(curve) > 1:
        record["learning_curve"] = sorted(curve, key=lambda row: row["pairs"])
    if outcomes[0].phases:
        record["phases"] = _phases(outcomes[0], held_out, seed)
    return record


def _phases(trained: Outcome, held_out: Sequence[Preference], seed: int) -> list[dict[str, Any]]:
    """Accuracy on the held-out pairs after each phase, and what that phase added to it."""
    after = [ScoredPairs.of(held_out, each) for each in (*trained.phases, trained.held_out)]
    prompts = after[0].prompts
    rows: list[dict[str, Any]] = [
        {"phase": number, "accuracy": clustered_mean(pairs.right, prompts, seed=seed).to_json()}
        for number, pairs in enumerate(after, 1)
    ]
    for row, before, now in zip(rows[1:], after, after[1:], strict=False):
        row["gain"] = clustered_mean(now.right - before.right, prompts, seed=seed).to_json()
    return rows


def _accuracy(held_out: Sequence[Preference], outcome: Outcome, seed: int) -> dict[str, float]:
    pairs = ScoredPairs.of(held_out, outcome.held_out)
    return clustered_mean(pairs.right, pairs.prompts, seed=seed).to_json()


def _columns(outcomes: Sequence[Outcome], held_out: Sequence[Preference]) -> Any:
    """Margins `[models, pairs]` on the held-out pairs that could be scored."""
    return np.stack([ScoredPairs.of(held_out, outcome.held_out).margins for outcome in outcomes])


def _members(
    members: Sequence[Outcome], held_out: Sequence[Preference], pairs: ScoredPairs
) -> dict[str, Any]:
    """Each member's accuracy, how alike they are, and whether their disagreement means anything."""
    margins = _columns(members, held_out)
    return {
        "accuracies": [
            float(ScoredPairs.of(held_out, member.held_out).right.mean()) for member in members
        ],
        "agreement": agreement(margins),
        "disagreement_finds_errors": disagreement_finds_errors(margins, pairs.right),
    }


def _folds(
    jobs: Sequence[Job],
    outcomes: Sequence[Outcome],
    validated: Sequence[int],
    held_out: Sequence[Preference],
    seed: int,
) -> dict[str, Any]:
    """Every pair judged by the model that has not seen it, and how far the models agree."""
    preferences = [row for number in validated for row in jobs[number].left_out]
    margins = [margin for number in validated for margin in outcomes[number].left_out]
    chosen = [outcomes[number] for number in validated]
    return {
        "out_of_fold": measure_pairs(ScoredPairs.of(preferences, margins), seed=seed),
        "agreement": agreement(_columns(chosen, held_out)),
    }


def _with_lengths(record: dict[str, Any], lengths: LengthRelation | None) -> dict[str, Any]:
    return record if lengths is None else record | lengths.to_json()
