"""What the guard of a finished training measured, and what it would have said otherwise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage.config import GuardConfig, TrainStage
from tutelage.config.document import KeyPath
from tutelage.config.load import build_section
from tutelage.config.overrides import write_value
from tutelage.data.jsonl import read_jsonl
from tutelage.errors import ConfigError, DataError
from tutelage.safety.guard import Finding, Guard, Measurement, replay
from tutelage.tracking.manifest import load_manifest
from tutelage.tracking.reader import read_json

__all__ = ["Watched", "read_watched"]


@dataclass(frozen=True)
class Watched:
    """The probes of a training with a guard."""

    history: Sequence[Measurement]
    """The first is that before training."""
    config: GuardConfig
    """What it was watched with."""
    looks: int
    """Probes after the first that the training was to have."""

    def with_prompts(self, count: int) -> "Watched":
        """The same with fewer prompts in every probe.

        Raises:
            ConfigError: there are not so many.
        """
        present = len(self.history[0].columns["proxy"])
        if not 2 <= count <= present:
            raise ConfigError(
                f"--prompts is {count}, expected 2 to {present}: each probe has so many"
            )
        fewer = [
            Measurement(each.step, {n: c[:count] for n, c in each.columns.items()}, each.undone)
            for each in self.history
        ]
        return Watched(fewer, self.config, self.looks)

    def with_settings(self, given: Mapping[KeyPath, Any]) -> "Watched":
        """The same with some settings of the guard changed.

        Raises:
            ConfigError: a setting is none of a guard.
        """
        values = self.config.model_dump(mode="json")
        for path, value in given.items():
            write_value(values, path, value, "--" + ".".join(map(str, path)).replace("_", "-"))
        return Watched(self.history, build_section(GuardConfig, values), self.looks)

    def findings(self) -> list[list[Finding]]:
        """What rings in each probe; the training is not changed by it."""
        return replay(self.history, self.config, self.looks)

    def kept_step(self) -> int | None:
        """The step whose policy the first alarm that stops or rolls back keeps; None without one.

        That is the best probe's by the signals, or without signals the one of the alarm itself.
        """
        guard = Guard(self.config, self.looks)
        for now in self.history:
            if guard.judge(replace(now, undone=False)).action in ("stop", "roll_back"):
                return now.step if guard.best_step is None else guard.best_step
        return None


def read_watched(stage: Path) -> Watched:
    """Reads the folder of a finished stage.

    Raises:
        ConfigError: it is no training with a guard.
        CheckpointError: it is not finished, or its manifest or `guard.json` cannot be read.
        DataError: its probes hold no measurements.
    """
    record = read_json(stage / "guard.json")
    if record is None:
        raise ConfigError(
            f"{stage} has no guard.json: expected the folder of a finished training with a guard, "
            "such as runs/NAME/stages/STAGE"
        )
    made = {key: value for key, value in load_manifest(stage).config.items() if key != "seed"}
    config = build_section(TrainStage, made)
    assert config.guard is not None, "it wrote guard.json"
    undone = {each["step"]: each["undone"] for each in record["measurements"]}
    rows: dict[int, list[Mapping[str, float | None]]] = {}
    path = stage / "probes.jsonl"
    for line, row in read_jsonl(path):
        if "values" not in row:
            raise DataError(f"{path}:{line}: found no values of the answer, which the guard writes")
        rows.setdefault(row["step"], []).append(row["values"])
    history = [_measurement(step, undone[step], rows[step]) for step in sorted(rows)]
    looks = math.ceil(config.learner.steps / config.probe_every)
    return Watched(history, config.guard, looks)


def _measurement(
    step: int, undone: bool, values: Sequence[Mapping[str, float | None]]
) -> Measurement:
    columns = {name: [row[name] for row in values] for name in values[0]}
    return Measurement.from_json({"step": step, "undone": undone, "columns": columns})
