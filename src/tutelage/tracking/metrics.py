"""Numbers and samples of a training loop, on their way to files.

    minibatches ──MetricAccumulator──> one number per key ──MetricWriter──> sinks
    prompts, completions, scores ─────────────────────────SampleWriter──> samples.jsonl

Each metric says how it is reduced, so that minibatches of different size and ranks
cannot be averaged wrongly. Keys are `group/name`; `docs/metrics.md` explains each.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from tutelage.records import Completion, Prompt, Score
from tutelage.tracking.sinks import JsonLinesFile, JsonLinesSink, Sink

__all__ = ["MetricAccumulator", "MetricWriter", "Reduction", "SampleWriter"]

Reduction = Literal["mean", "sum", "max", "min"]

_log = logging.getLogger(__name__)


class MetricAccumulator:
    """Reduces the metrics of several parts of a step to one number per key."""

    def __init__(self, reductions: Mapping[str, Reduction] | None = None) -> None:
        """Keys not named in `reductions` are averaged."""
        self._reductions = dict(reductions or {})
        self._parts: dict[str, list[tuple[float, float]]] = {}

    def add(self, metrics: Mapping[str, float], *, weight: float = 1.0) -> None:
        """Adds one part; `weight` is what its means were taken over, such as its tokens."""
        for key, value in metrics.items():
            self._parts.setdefault(key, []).append((float(value), weight))

    def result(self) -> dict[str, float]:
        """One number per key; a mean without any weight is left out."""
        reduced = {
            key: _reduce(self._reductions.get(key, "mean"), parts)
            for key, parts in self._parts.items()
        }
        return {key: value for key, value in reduced.items() if value is not None}


def _reduce(reduction: Reduction, parts: Sequence[tuple[float, float]]) -> float | None:
    values = [value for value, _ in parts]
    if reduction == "sum":
        return math.fsum(values)
    if reduction in ("max", "min"):
        # Python's max ignores a NaN that is not first; a NaN must not be lost.
        if any(math.isnan(value) for value in values):
            return math.nan
        return max(values) if reduction == "max" else min(values)
    total = math.fsum(weight for _, weight in parts)
    return sum(value * weight for value, weight in parts if weight) / total if total else None


class MetricWriter:
    """Hands each step's metrics to its sinks. Logging never raises into the loop."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        seconds: float = 0.0,
        report: Callable[[str], None] = _log.warning,
    ) -> None:
        """A writer without sinks is allowed and keeps nothing.

        Args:
            sinks: receive all metrics.
            seconds: time spent before, where a stage is resumed.
            report: is told once of each sink that fails.
        """
        self._sinks = sinks
        self._boundary = _Boundary(report)
        self._began = time.monotonic() - seconds

    @classmethod
    def open(
        cls,
        folder: Path,
        trackers: Sequence[Sink] = (),
        *,
        seconds: float = 0.0,
        report: Callable[[str], None] = _log.warning,
    ) -> Self:
        """A writer of `metrics.jsonl`, which is continued where it exists, and of trackers.

        Raises:
            CheckpointError: the file cannot be written.
        """
        sinks = [JsonLinesSink(folder / "metrics.jsonl"), *trackers]
        return cls(sinks, seconds=seconds, report=report)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one number per key. A sink that fails is reported once and tried again."""
        values = {key: float(value) for key, value in metrics.items()}
        seconds = self.seconds
        for sink in self._sinks:
            self._boundary.call(sink, partial(sink.write, step, seconds, values))

    @property
    def seconds(self) -> float:
        """Time since the stage began, pauses between its processes left out."""
        return time.monotonic() - self._began

    def flush(self) -> None:
        """Puts all that was logged into the files."""
        for sink in self._sinks:
            self._boundary.call(sink, sink.flush)

    @property
    def failures(self) -> int:
        """How many writes failed so far."""
        return self._boundary.failures

    def close(self) -> None:
        """Closes the sinks."""
        for sink in self._sinks:
            self._boundary.call(sink, sink.close)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the sinks."""
        self.close()


class SampleWriter:
    """Writes what the policy wrote: reading it is how reward hacking is found."""

    def __init__(self, path: Path, *, per_step: int = 8) -> None:
        """Opens `path`; of each step the first `per_step` samples are kept.

        Raises:
            CheckpointError: the file cannot be written.
        """
        self._file = JsonLinesFile(path)
        self._per_step = per_step
        self._boundary = _Boundary(_log.warning)

    def log(
        self,
        step: int,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        scores: Sequence[Score],
        kl: Sequence[float] | None = None,
    ) -> None:
        """Writes the step's first samples; `kl` is the sum over each completion's tokens."""
        rows = zip(prompts, completions, scores, strict=True)
        for index, (prompt, completion, score) in enumerate(rows):
            if index == self._per_step:
                break
            row = _sample(step, prompt, completion, score, None if kl is None else kl[index])
            self._boundary.call(self._file, partial(self._file.append, row))

    def close(self) -> None:
        """Closes the file."""
        self._boundary.call(self._file, self._file.close)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self.close()


def _sample(
    step: int, prompt: Prompt, completion: Completion, score: Score, kl: float | None
) -> dict[str, Any]:
    return {
        "step": step,
        "prompt_id": prompt.id,
        "prompt": [message.to_json() for message in prompt.messages],
        "completion": completion.text,
        "tokens": sum(completion.written),
        "stop": completion.stop.value,
        "status": score.status.value,
        "score": _finite(score.value),
        "parts": {part: _finite(value) for part, value in score.parts.items()},
        "kl": None if kl is None else _finite(kl),
        "notes": score.notes,
    }


def _finite(value: float) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


class _Boundary:
    """Where a failing tracker stops: counted, logged once per target, never raised."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.failures = 0
        self._report = report
        self._reported: set[int] = set()

    def call(self, target: object, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self.failures += 1
            if id(target) not in self._reported:
                self._reported.add(id(target))
                name = type(target).__name__
                self._report(f"{name} failed, training goes on without it: {error}")
