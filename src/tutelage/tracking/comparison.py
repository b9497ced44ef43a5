"""Several finished runs of one recipe in one table: means over seeds, with intervals.

    run of seed 0 ──evaluation, costs──┐
    run of seed 1 ─────────────────────┼──> mean over runs, Student's interval ──> table, files
    run of seed 2 ─────────────────────┘

A run makes its data, its labels, its models and its test prompts anew from its seed. What differs
from run to run holds all of these sources of chance, so an interval over runs covers them all: it
says what a further seed would give. Differences to the baseline are taken within each run, on the
same prompts. One run alone keeps its own intervals, which are over prompts.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError
from tutelage.tracking.atomic import write_json_atomically, write_text_atomically
from tutelage.tracking.evaluation_record import Difference, Estimate, EvaluationRecord, Model
from tutelage.tracking.reader import RunRecord
from tutelage.tracking.report_stages import configuration_rows
from tutelage.tracking.table import Overview

__all__ = ["Comparison", "student_interval"]

_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom; beyond, the last one."""


def student_interval(values: Sequence[float]) -> Estimate:
    """The mean of a few independent values with its 95 % interval (Student 1908).

    Of one value the interval is the value.
    """
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Estimate(mean, mean, mean, 1)
    quantile = _STUDENT[min(count - 1, len(_STUDENT)) - 1]
    half = quantile * statistics.stdev(values) / sqrt(count)
    return Estimate(mean, mean - half, mean + half, count)


@dataclass(frozen=True)
class Comparison:
    """Runs of one recipe, and what they say together."""

    runs: tuple[RunRecord, ...]
    evaluations: tuple[EvaluationRecord, ...]
    """One for each run."""
    record: EvaluationRecord
    """Their means; `n` of an estimate is the number of runs."""

    @classmethod
    def of(cls, runs: Sequence[RunRecord]) -> "Comparison":
        """Reads the runs together.

        Raises:
            ConfigError: there is no run, one has no evaluation, two have the same seed, or they
                are not of one recipe.
        """
        if not runs:
            raise ConfigError("no run to compare: tutelage compare RUN...")
        evaluations = tuple(map(_evaluation, runs))
        for run in runs[1:]:
            _require_same_recipe(runs[0], run)
        _require_different_seeds(runs)
        return cls(tuple(runs), evaluations, _pooled(evaluations))

    @property
    def overview(self) -> Overview:
        """A row for each model, with what the intervals are over."""
        if len(self.runs) == 1:
            return Overview(self.record)
        seeds = ", ".join(str(run.summary.get("seed", "?")) for run in self.runs)
        return Overview(self.record, f"mean over seeds {seeds}; ± 95 % interval over seeds")

    def write(self, folder: Path) -> None:
        """Writes `comparison.md` and `comparison.json`.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        title = f"# {self.runs[0].name}: the models compared\n\n"
        write_text_atomically(folder / "comparison.md", title + self.overview.to_markdown())
        write_json_atomically(folder / "comparison.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """All measures and differences, each with the value of every run."""
        return {
            "runs": [
                {"folder": run.folder.as_posix(), "seed": run.summary.get("seed")}
                for run in self.runs
            ],
            "baseline": self.record.baseline.name,
            "measures": [asdict(measure) for measure in self.record.measures],
            "models": [self._model(model) for model in self.record.models],
            "differences": [
                {**asdict(row), "runs": [each.mean for each in self._same(row)]}
                for row in self.record.differences
            ],
        }

    def _model(self, model: Model) -> dict[str, Any]:
        same = [_named(record, model.name) for record in self.evaluations]
        return {
            "name": model.name,
            "label": model.label,
            "measures": {
                key: {**asdict(estimate), "runs": [each.measures[key].mean for each in same]}
                for key, estimate in model.measures.items()
            },
        }

    def _same(self, row: Difference) -> list[Difference]:
        wanted = (row.model, row.measure, row.baseline)
        found = [record.difference(*wanted) for record in self.evaluations]
        return [each for each in found if each is not None]


def _evaluation(run: RunRecord) -> EvaluationRecord:
    if run.evaluation is None:
        raise ConfigError(
            f"{run.folder} has no finished stage that evaluates models: finish the run, or leave "
            "it out"
        )
    return run.evaluation


def _require_same_recipe(first: RunRecord, other: RunRecord) -> None:
    ours, theirs = _settings(first), _settings(other)
    different = sorted(
        key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)
    )
    if different:
        key = different[0]
        raise ConfigError(
            f"{first.folder} and {other.folder} are not runs of one recipe: {key} is "
            f"{ours.get(key, 'not there')} in the first and {theirs.get(key, 'not there')} in the "
            "second"
        )


def _settings(run: RunRecord) -> Mapping[str, str]:
    return {
        f"{stage.name}.{key}": value
        for stage in run.stages
        for key, value in configuration_rows(stage)
    }


def _require_different_seeds(runs: Sequence[RunRecord]) -> None:
    seen: dict[Any, Path] = {}
    for run in runs:
        seed = run.summary.get("seed")
        if seed is not None and seed in seen:
            raise ConfigError(
                f"{seen[seed]} and {run.folder} both have seed {seed}, so that they say the same "
                "thing twice: give runs of different seeds"
            )
        seen[seed] = run.folder


def _pooled(records: Sequence[EvaluationRecord]) -> EvaluationRecord:
    """Means over the records of what all of them have; a single record stays as it is."""
    first = records[0]
    if len(records) == 1:
        return first
    return replace(
        first,
        models=tuple(
            _mean_model([_named(record, model.name) for record in records])
            for model in first.models
        ),
        differences=tuple(
            _mean_difference([each for each in found if each is not None])
            for row in first.differences
            if None
            not in (
                found := [
                    record.difference(row.model, row.measure, row.baseline) for record in records
                ]
            )
        ),
        checkpoints=(),
        histograms={},
        length_control=(),
        notes=(),
        samples=(),
    )


def _named(record: EvaluationRecord, name: str) -> Model:
    return next(model for model in record.models if model.name == name)


def _mean_model(models: Sequence[Model]) -> Model:
    shared = [key for key in models[0].measures if all(key in model.measures for model in models)]
    return replace(
        models[0],
        measures={
            key: student_interval([model.measures[key].mean for model in models]) for key in shared
        },
    )


def _mean_difference(rows: Sequence[Difference]) -> Difference:
    pooled = student_interval([row.mean for row in rows])
    return replace(rows[0], mean=pooled.mean, low=pooled.low, high=pooled.high)
