"""Reads a run folder back: the finished stages and what each left in its files."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tutelage.errors import CheckpointError
from tutelage.tracking.cost import with_costs
from tutelage.tracking.evaluation_record import EvaluationRecord
from tutelage.tracking.manifest import MANIFEST, Manifest, load_manifest

__all__ = ["RunRecord", "StageRecord", "read_json", "read_json_lines", "read_run"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A finished stage; None and empty stand for files it did not write."""

    name: str
    folder: Path
    manifest: Manifest
    metrics: tuple[Mapping[str, Any], ...]
    """Rows of `metrics.jsonl`."""
    labels: Mapping[str, Any] | None
    reward: Mapping[str, Any] | None
    evaluation: Mapping[str, Any] | None
    """`evaluation.json` as it stands; `RunRecord.evaluations` are the checked form."""

    def curve(self, key: str) -> tuple[list[float], list[float]]:
        """Steps and values of one metric; steps without a finite value are left out."""
        points = [
            (float(row["step"]), float(row["metrics"][key]))
            for row in self.metrics
            if row["metrics"].get(key) is not None
        ]
        return [step for step, _ in points], [value for _, value in points]

    @property
    def trains_a_policy(self) -> bool:
        """Whether the stage learnt by reinforcement."""
        return any(key.startswith("policy/") for key in self.metric_keys)

    def samples(self) -> tuple[Mapping[str, Any], ...]:
        """What the policy wrote while it trained; other stages' `samples.jsonl` are data."""
        return read_json_lines(self.folder / "samples.jsonl") if self.trains_a_policy else ()

    @property
    def metric_keys(self) -> list[str]:
        """The keys of `metrics.jsonl`, in order of first appearance."""
        return list(dict.fromkeys(key for row in self.metrics for key in row["metrics"]))


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything a report needs, in memory."""

    folder: Path
    summary: Mapping[str, Any]
    stages: tuple[StageRecord, ...]
    """In the order in which they were started."""
    evaluations: tuple[EvaluationRecord, ...]
    """With what each model took to make."""

    @property
    def evaluation(self) -> EvaluationRecord | None:
        """The last one."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def name(self) -> str:
        """The name in the summary, or the folder's."""
        return str(self.summary.get("name") or self.folder.name)

    @property
    def seconds(self) -> float:
        """Wall time of the run, or the sum over its stages."""
        stated = self.summary.get("seconds")
        return float(stated) if stated else sum(stage.manifest.seconds for stage in self.stages)


def read_run(run_folder: Path) -> RunRecord:
    """Reads what is on disk; unfinished stages are not looked at.

    Raises:
        CheckpointError: there is no finished stage, or a file cannot be read.
    """
    manifests = (run_folder / "stages").glob(f"[!.]*/{MANIFEST}")
    stages = [_read_stage(path.parent) for path in manifests]
    if not stages:
        raise CheckpointError(
            f"{run_folder} holds no finished stage: start the run with `tutelage run` first"
        )
    stages.sort(key=lambda stage: (stage.manifest.started, stage.manifest.finished, stage.name))
    made = [stage.manifest for stage in stages]
    evaluations = []
    for stage in stages:
        if stage.evaluation is not None:
            path = stage.folder / "evaluation.json"
            record = _readable(path, partial(EvaluationRecord.from_json, stage.evaluation))
            evaluations.append(with_costs(record, made))
    summary = read_json(run_folder / "summary.json") or {}
    return RunRecord(run_folder, summary, tuple(stages), tuple(evaluations))


def read_json_lines(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The rows of a JSON lines file, none where it does not exist.

    Raises:
        CheckpointError: a line is not JSON; the message names it.
    """
    rows = []
    text = _readable(path, lambda: path.read_text(encoding="utf-8")) if path.is_file() else ""
    for index, line in enumerate(text.split("\n"), start=1):
        if line:
            rows.append(_readable(f"{path}:{index}", partial(json.loads, line)))
    return tuple(rows)


def _read_stage(folder: Path) -> StageRecord:
    return StageRecord(
        name=folder.name,
        folder=folder,
        manifest=load_manifest(folder),
        metrics=read_json_lines(folder / "metrics.jsonl"),
        labels=read_json(folder / "labels.json"),
        reward=read_json(folder / "reward.json"),
        evaluation=read_json(folder / "evaluation.json"),
    )


def read_json(path: Path) -> Mapping[str, Any] | None:
    """The object in a JSON file, None where it does not exist.

    Raises:
        CheckpointError: it cannot be read, or holds no object.
    """
    if not path.is_file():
        return None
    return _readable(path, lambda: dict(json.loads(path.read_text(encoding="utf-8"))))


def _readable(place: Path | str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{place} cannot be read ({type(error).__name__}: {error}): run its stage again"
        ) from error
