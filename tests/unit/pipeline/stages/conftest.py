"""Runs a stage function by itself, in this process, on files of the test."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tutelage.pipeline.context import StageContext
from tutelage.pipeline.references import References
from tutelage.tracking.metrics import MetricWriter
from tutelage.tracking.progress import NullProgress


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[str, Sequence[Mapping[str, Any]]], str]:
    """Writes rows to a file; returns the reference to it."""

    def write(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., StageContext]:
    """A stage's context that writes into a new folder each time."""
    made = 0

    def build(seed: int = 0) -> StageContext:
        nonlocal made
        made += 1
        folder = tmp_path / f"stage{made}"
        folder.mkdir()
        return StageContext(
            name="stage",
            folder=folder,
            seed=seed,
            threads=1,
            progress=NullProgress(),
            metrics=MetricWriter([]),
            references=References(),
        )

    return build


@pytest.fixture
def read_rows() -> Callable[[Path], list[dict[str, Any]]]:
    """The rows of a file that a stage wrote."""
    return lambda path: [json.loads(line) for line in path.read_text().splitlines()]
