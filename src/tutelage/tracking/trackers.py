"""The trackers that a recipe may ask for, beside `metrics.jsonl`.

    trackers: {tensorboard, wandb, trackio} ──check_trackers──> refused before the run starts
                                            ──Trackers.open───> a sink each, in the stage's process

Nothing leaves the machine unasked: Weights & Biases writes files for `wandb sync` unless the
variable WANDB_MODE says otherwise, and trackio writes a local database.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tutelage.config import TrackersConfig
from tutelage.errors import MissingExtraError
from tutelage.tracking.sinks import Sink, TensorBoardSink

__all__ = ["TrackedStage", "Trackers", "TrackioSink", "WandbSink", "check_trackers"]

_EXTRAS = {"tensorboard": "track", "wandb": "wandb", "trackio": "trackio"}
"""The extra of this package that brings each tracker."""


@dataclass(frozen=True)
class TrackedStage:
    """What a tracker is told of a stage."""

    name: str
    identity: str
    """The same in every process of the stage: an interrupted one goes on where it was."""
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Trackers:
    """The trackers of a run; by default TensorBoard's files, where it is installed."""

    config: TrackersConfig = field(default_factory=TrackersConfig)
    run: str = "tutelage"
    """The name under which the stages are found together."""
    folder: Path = Path()
    """Of the run."""

    def open(
        self, stage: TrackedStage, stage_folder: Path, report: Callable[[str], None]
    ) -> list[Sink]:
        """One sink per tracker. One that cannot be opened is reported and left out."""
        makers: dict[str, Callable[[], Sink]] = {
            "tensorboard": lambda: TensorBoardSink(stage_folder / "tensorboard"),
            "wandb": lambda: WandbSink(self, stage),
            "trackio": lambda: TrackioSink(self, stage),
        }
        opened = []
        for name in _wanted(self.config):
            try:
                opened.append(makers[name]())
            except Exception as error:
                report(f"{name} cannot be opened, the stage goes on without it: {error}")
        return opened


class WandbSink:
    """Weights & Biases: files in `wandb/` of the run folder, for `wandb sync`."""

    def __init__(self, trackers: Trackers, stage: TrackedStage) -> None:
        """Begins or continues the run of a stage.

        Raises:
            MissingExtraError: wandb is not installed.
        """
        wandb = _import("wandb")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._run = wandb.init(
            project=trackers.config.project,
            group=trackers.run,
            name=f"{trackers.run}/{stage.name}",
            id=stage.identity,
            resume="allow",
            dir=str(trackers.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(stage.config),
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_machine_info=True,
            ),
        )
        # A resumed stage repeats the steps after its checkpoint; wandb's own step cannot go back.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Logs one value per metric."""
        self._run.log({"step": step, "seconds": seconds, **metrics})

    def flush(self) -> None:
        """Does nothing: wandb writes in a process of its own."""

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class TrackioSink:
    """trackio: a local database, shown by `trackio show`."""

    def __init__(self, trackers: Trackers, stage: TrackedStage) -> None:
        """Begins or continues the run of a stage.

        Raises:
            MissingExtraError: trackio is not installed.
        """
        trackio = _import("trackio")
        self._run = trackio.init(
            project=trackers.config.project,
            group=trackers.run,
            name=f"{trackers.run}/{stage.name}/{stage.identity[:8]}",
            resume="allow",
            config=dict(stage.config),
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def write(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Logs one value per metric."""
        self._run.log({**metrics, "seconds": seconds}, step=step)

    def flush(self) -> None:
        """Does nothing: trackio writes in a thread of its own."""

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


def check_trackers(config: TrackersConfig) -> None:
    """Refuses a recipe that asks for a tracker that is not there.

    Raises:
        MissingExtraError: naming the extra to install.
    """
    for name in _wanted(config):
        if find_spec(name) is None:
            raise MissingExtraError(name, _EXTRAS[name])


def _wanted(config: TrackersConfig) -> list[str]:
    asked = {name: getattr(config, name) for name in _EXTRAS}
    if asked["tensorboard"] is None:
        asked["tensorboard"] = find_spec("tensorboard") is not None
    return [name for name, wanted in asked.items() if wanted]


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(name, _EXTRAS[name]) from error
