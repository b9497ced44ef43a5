"""`summary.json`: a run in one object, for programs; `docs/run-folder.md` lists its keys."""

from pathlib import Path
from typing import Any

from tutelage.tracking.atomic import write_json_atomically
from tutelage.tracking.reader import RunRecord, read_run

__all__ = ["build_summary", "write_summary"]

_NOT_SUMMED_UP = {"samples", "histograms"}


def build_summary(run: RunRecord, *, name: str, seed: int, seconds: float) -> dict[str, Any]:
    """One object per stage with its metrics, and the evaluation without its samples."""
    summary: dict[str, Any] = {
        "name": name,
        "seed": seed,
        "seconds": round(seconds, 3),
        "stages": {
            stage.name: {
                "kind": stage.manifest.kind,
                "seconds": stage.manifest.seconds,
                "metrics": dict(stage.manifest.metrics),
            }
            for stage in run.stages
        },
    }
    for stage in run.stages:
        if stage.evaluation is not None:
            summary["evaluation"] = {
                key: value for key, value in stage.evaluation.items() if key not in _NOT_SUMMED_UP
            }
    return summary


def write_summary(run_folder: Path, *, name: str, seed: int, seconds: float) -> Path:
    """Writes `summary.json` from the finished stages and returns its path.

    Raises:
        CheckpointError: no stage is finished, a file is damaged, or the disk is full.
    """
    path = run_folder / "summary.json"
    run = read_run(run_folder)
    write_json_atomically(path, build_summary(run, name=name, seed=seed, seconds=seconds))
    return path
