"""Deals rows out to disjoint parts, so that nothing is tested that was trained on.

rows ──same text or same first message──> groups ──shuffled, by shares──> rl.jsonl, test.jsonl, ...

Dialogues that begin alike are mostly continuations of each other: dealt out one by one, the
answer to a test prompt would stand in a training row.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from tutelage.config import SplitStage
from tutelage.data.jsonl import read_jsonl, write_jsonl
from tutelage.data.text import normalize
from tutelage.errors import DataError
from tutelage.pipeline.context import StageContext

__all__ = ["run"]

Row = dict[str, Any]


def run(config: SplitStage, context: StageContext) -> dict[str, float]:
    """Writes one file per part; returns the number of rows in each."""
    paths = context.resolve_all(config.data, "preferences.jsonl")
    parts = _deal(_groups(paths), config.parts, context.seed)
    for done, (name, rows) in enumerate(parts.items(), 1):
        write_jsonl(context.folder / f"{name}.jsonl", rows)
        context.progress.step(done, len(parts))
    return {name: float(len(rows)) for name, rows in parts.items()}


def _groups(paths: Sequence[Path]) -> list[list[Row]]:
    """The rows of all files; those that begin alike are together."""
    groups: dict[str, list[Row]] = {}
    for path in paths:
        for line, row in read_jsonl(path):
            groups.setdefault(_beginning(row, path, line), []).append(row)
    return list(groups.values())


def _beginning(row: Row, path: Path, line: int) -> str:
    """What must not be in two parts: the text, or what the user says first."""
    said = row.get("text")
    conversation = row.get("prompt", row.get("messages"))
    if isinstance(conversation, list):
        first = [m for m in conversation if isinstance(m, dict) and m.get("role") != "system"]
        said = first[0].get("content") if first else None
    if not isinstance(said, str):
        raise DataError(
            f"{path}:{line}: the row has no text and no conversation to split by: expected "
            "'text', 'prompt' or 'messages'"
        )
    return normalize(said).casefold()


def _deal(
    groups: Sequence[list[Row]], shares: Mapping[str, float], seed: int
) -> dict[str, list[Row]]:
    """Fills the parts one after the other until each has its share; what is left is not used."""
    order = random.Random(seed).sample(range(len(groups)), len(groups))
    total = sum(map(len, groups))
    ends = [round(share * total) for share in accumulate(shares.values())]
    parts: dict[str, list[Row]] = {name: [] for name in shares}
    dealt = 0
    for index in order:
        open_parts = (name for name, end in zip(shares, ends, strict=True) if dealt < end)
        part = next(open_parts, None)
        if part is not None:
            parts[part] += groups[index]
        dealt += len(groups[index])
    empty = [name for name, rows in parts.items() if not rows]
    if empty:
        raise DataError(
            f"{total} rows that begin in {len(groups)} different ways are too few for "
            f"{len(parts)} parts: {', '.join(empty)} would be empty; give more data"
        )
    return parts
