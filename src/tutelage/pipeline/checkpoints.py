"""Saving and resuming inside a stage.

    with context.checkpoints.track(model=model, learner=learner, batches=batches) as checkpoints:
        for step in sft(..., start=batches.taken):
            ...
            checkpoints.boundary(step.index + 1)

`track` gives every part the state of the newest checkpoint, where there is one. `boundary` says
that nothing is half done: it saves where it is time to, and ends the stage where that was asked
for by SIGTERM. What the stage has written into its folder by then belongs to the checkpoint.

    <run>/checkpoints/<stage>/<identity>/00000040/   manifest.json, state.json,
                                                        tensors.safetensors, files/
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from tutelage.config import CheckpointConfig
from tutelage.errors import CheckpointError
from tutelage.native import version
from tutelage.pipeline.unfinished import ROUNDING_KEYS, changed_settings
from tutelage.tracking.checkpoint import Checkpoint, CheckpointStore
from tutelage.tracking.metrics import MetricWriter
from tutelage.tracking.progress import NullProgress, Progress

if TYPE_CHECKING:
    from tutelage.trainers.state import Part

__all__ = [
    "CheckpointPlace",
    "Checkpoints",
    "NullCheckpoints",
    "StopRequested",
]

_FILES = "files"
_COMPILED = "compiled operations"
_SHARE = 0.05
"""Largest share of the time that saving may take."""


class StopRequested(BaseException):
    """The stage was asked to end and has done so at a boundary; no error to be caught."""

    def __init__(self, step: int | None) -> None:
        """Of the newest checkpoint; None where none could be saved."""
        super().__init__(step)
        self.step = step


@dataclass(frozen=True)
class CheckpointPlace:
    """Where a stage saves itself, how often, and what is to be known of it later."""

    folder: Path
    about: Mapping[str, Any]
    """`stage`, `threads` and `versions`, as JSON."""
    config: CheckpointConfig
    weights: Path | None = None
    """A checkpoint of which the weights are taken, where the stage has none of its own."""


class Checkpoints:
    """The checkpoints of a running stage."""

    def __init__(
        self,
        place: CheckpointPlace,
        folder: Path,
        progress: Progress,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Looks for a checkpoint and restores the files that the stage had written.

        Args:
            place: of the checkpoints.
            folder: the stage's own, still empty.
            progress: hears what is saved and resumed.
            clock: tells seconds; must never go back.

        Raises:
            CheckpointError: there are checkpoints, and all of them are damaged.
        """
        self._store = CheckpointStore(place.folder, keep=place.config.keep)
        self._place = place
        self._folder = folder
        self._progress = progress
        self._clock = clock
        self._metrics = MetricWriter([])
        self._parts: Mapping[str, Part] = {}
        self._stop = False
        self._store.tidy()
        self._found = self._to_load = self._store.newest(progress.message)
        self._saved = self._found.step if self._found else None
        self._due = self._next_due(0.0)
        self._weights = None if self._found else place.weights
        if self._found is not None:
            _copy(self._found.path / _FILES, folder)
            progress.message(f"goes on from step {self._found.step}")
            self._report_changes(self._found)

    @property
    def resumed_at(self) -> int:
        """The step from which the stage goes on; 0 where it begins."""
        return self._found.step if self._found else 0

    @property
    def earlier_seconds(self) -> float:
        """What was spent on the steps before that."""
        return float(self._found.about["seconds"]) if self._found else 0.0

    def count_in(self, metrics: MetricWriter) -> None:
        """Makes the files of `metrics` part of every checkpoint."""
        self._metrics = metrics

    @contextmanager
    def track(self, **parts: "Part") -> Iterator[Self]:
        """Within the block, `boundary` saves these parts.

        On entering for the first time they get their state from the checkpoint, if there is one;
        so whatever else depends on them is made afterwards.

        Raises:
            CheckpointError: the checkpoint holds other parts.
        """
        from tutelage.trainers.state import RandomStates, load_parts

        self._parts = {**parts, "random": RandomStates()}
        if self._to_load is not None:
            load_parts(self._parts, self._to_load.path)
            self._to_load = None
        elif self._weights is not None:
            self._take_weights(self._weights, parts)
            self._weights = None
        before = signal.signal(signal.SIGTERM, self._request_stop)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)
            self._parts = {}

    def boundary(self, step: int) -> None:
        """Nothing is half done: `step` steps are complete, logged and reported.

        A checkpoint that cannot be written is reported, and the stage goes on.

        Raises:
            StopRequested: SIGTERM has come; all is saved.
        """
        if self._stop:
            self.save(step)
            raise StopRequested(self._saved)
        if self._clock() >= self._due:
            self._save(step)

    def save(self, step: int) -> None:
        """Saves after `step` steps, whether or not it is time to; see `boundary`."""
        if step != self._saved:
            self._save(step)

    def _save(self, step: int) -> None:
        began = self._clock()
        try:
            about = {**self._about(), "seconds": round(self._metrics.seconds, 3)}
            self._store.save(step, about, self._write)
            self._saved = step
        except CheckpointError as error:
            self._progress.message(f"step {step} could not be saved, the stage goes on: {error}")
        self._due = self._next_due(self._clock() - began)

    def _write(self, folder: Path) -> None:
        from tutelage.trainers.state import save_parts

        save_parts(self._parts, folder)
        self._metrics.flush()
        _copy(self._folder, folder / _FILES)

    def _about(self) -> dict[str, Any]:
        """Asked only where a state is saved or found: a stage without one may compute nothing."""
        return {**self._place.about, _COMPILED: version()}

    def _next_due(self, cost: float) -> float:
        least = self._place.config.seconds
        return self._clock() + (max(least, cost / _SHARE) if least else 0.0)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _take_weights(self, source: Path, parts: Mapping[str, "Part"]) -> None:
        from tutelage.trainers.state import load_weights

        names = ", ".join(load_weights(parts, source))
        self._progress.message(f"starts from the weights of {source} ({names}) and nothing else")

    def _report_changes(self, found: Checkpoint) -> None:
        """Says what may change the last digits of all numbers from here on."""
        about = self._about()
        for key in ("threads", "versions", _COMPILED):
            # A checkpoint of an earlier release may not tell.
            self._report_change(key, found.about.get(key, about[key]), about[key])
        before, now = (each.get("stage", {}).get("config", {}) for each in (found.about, about))
        for key, pair in changed_settings(before, now).items():
            if key in ROUNDING_KEYS:
                self._report_change(key, *pair)

    def _report_change(self, key: str, before: Any, now: Any) -> None:
        if before != now:
            self._progress.message(
                f"{key} were {before} when it was saved and are {now} now: numbers may differ "
                "in their last digits from those of an uninterrupted run"
            )


class NullCheckpoints(Checkpoints):
    """Saves nothing and resumes nothing."""

    def __init__(self) -> None:
        """Needs no place."""
        self._progress = NullProgress()
        self._found = None

    @contextmanager
    def track(self, **parts: "Part") -> Iterator[Self]:
        """Does nothing."""
        yield self

    def boundary(self, step: int) -> None:
        """Does nothing."""

    def save(self, step: int) -> None:
        """Does nothing."""


def _copy(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            shutil.copyfile(path, place)
