"""Where metrics go: JSON lines are the truth, everything else is a view of them.

Setting a sink up may fail the run; writing to it may not. A sink is free to raise,
and `MetricWriter` keeps that away from the training loop.
"""

import json
import math
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from tutelage.errors import MissingExtraError
from tutelage.tracking.atomic import storage_error

__all__ = ["JsonLinesFile", "JsonLinesSink", "NullSink", "Sink", "TensorBoardSink"]


class Sink(Protocol):
    """Something that shows or keeps metrics."""

    def write(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Takes the metrics of one step, `seconds` after the stage began."""
        ...

    def flush(self) -> None:
        """Puts all that was taken where it can be read and copied."""
        ...

    def close(self) -> None:
        """Finishes what is pending; nothing is written afterwards."""
        ...


class NullSink:
    """Takes everything and keeps nothing."""

    def write(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class JsonLinesFile:
    """A file of JSON objects that only grows, and only by whole lines."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file.

        Raises:
            CheckpointError: it cannot be written.
        """
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise storage_error(path, error) from error

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds one line. When the disk is full it raises OSError and leaves no half line."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
        end = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError:
            os.truncate(self._file.name, end)
            raise

    def close(self) -> None:
        """Closes the file; closing twice is harmless."""
        self._file.close()


class JsonLinesSink:
    """One line per step: `{"step", "seconds", "metrics"}`.

    JSON has no NaN and no infinity: such a value is written as null, and the row's
    `non_finite` says which it was.
    """

    def __init__(self, path: Path) -> None:
        """Opens or creates the file; raises CheckpointError where that is impossible."""
        self._file = JsonLinesFile(path)

    def write(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Appends the step's line."""
        finite = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        row: dict[str, Any] = {"step": step, "seconds": round(seconds, 3), "metrics": finite}
        odd = {key: str(value) for key, value in metrics.items() if finite[key] is None}
        if odd:
            row["non_finite"] = odd
        self._file.append(row)

    def flush(self) -> None:
        """Does nothing: lines are written at once."""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardSink:
    """TensorBoard event files, read by `tensorboard --logdir runs/<name>/stages`."""

    def __init__(self, folder: Path) -> None:
        """Creates the event file.

        Raises:
            MissingExtraError: TensorBoard is not installed.
        """
        try:
            # Asked first: torch takes seconds to say that it is missing.
            import_module("tensorboard")
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "track") from error
        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Adds one scalar per metric."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)

    def flush(self) -> None:
        """Writes pending events."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()
