"""Judged pairs in our own form and in that of reward-model benchmarks.

preference rows                                      prompt is an array of messages
RewardBench: prompt, chosen, rejected, subset        prompt is a string
"""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tutelage.data.jsonl import read_jsonl
from tutelage.data.loaders import load_preferences
from tutelage.errors import DataError
from tutelage.records import Comparison, Message, Preference, Prompt

__all__ = ["load_judged_pairs"]

Row = Mapping[str, Any]


def load_judged_pairs(path: str | Path, limit: int | None = None) -> list[Preference]:
    """Preferences, or rows of a benchmark, whose `subset` becomes the prompt's category.

    Raises:
        DataError: a row has another form; the message names file and line.
    """
    first = next(read_jsonl(Path(path)), None)
    if first is None or not isinstance(first[1].get("prompt"), str):
        return load_preferences(path, limit)
    return list(itertools.islice(_benchmark_rows(Path(path)), limit))


def _benchmark_rows(path: Path) -> Iterator[Preference]:
    for line, row in read_jsonl(path):
        for key in ("prompt", "chosen", "rejected"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise DataError(
                    f"{path}:{line}: {key} is {row.get(key)!r}, expected a text as in the rows "
                    "before it (prompt, chosen, rejected, subset)"
                )
        name = str(row.get("id", line))
        prompt = Prompt(
            f"{row.get('subset', '')}/{name}",
            (Message("user", row["prompt"]),),
            source=str(row.get("source") or ""),
            category=str(row.get("subset") or ""),
        )
        comparison = Comparison(prompt, row["chosen"], row["rejected"], name)
        yield Preference(comparison, 1.0, annotator="benchmark")
