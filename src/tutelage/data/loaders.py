"""Records out of files; a file with a fault gives none.

any schema with `prompt` ────────load_prompts───────> Prompt
sft, preference (better text) ───load_demonstrations─> Demonstration
preference, in both forms ───────load_preferences────> Preference
prompts with a and b ────────────load_comparisons────> Comparison
samples ─────────────────────────load_samples────────> Samples
text, labelled ──────────────────load_texts──────────> str
labelled ────────────────────────load_labelled───────> LabelledText
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tutelage.data.checking import CheckedRow, checked_rows
from tutelage.data.jsonl import Fault
from tutelage.data.schema import Schema
from tutelage.errors import DataError
from tutelage.records import Comparison, Demonstration, Preference, Prompt, StopReason

__all__ = [
    "LabelledText",
    "Samples",
    "faultless",
    "load_comparisons",
    "load_demonstrations",
    "load_labelled",
    "load_preferences",
    "load_prompts",
    "load_samples",
    "load_texts",
]

Row = dict[str, Any]
Record = TypeVar("Record")

_MAX_SHOWN = 5
_WITH_PROMPT = (
    Schema.PROMPTS,
    Schema.VERIFIABLE,
    Schema.SAMPLES,
    Schema.PREFERENCE,
    Schema.EVAL,
)


@dataclass(frozen=True, slots=True)
class Samples:
    """A prompt with the texts of several completions."""

    prompt: Prompt
    completions: tuple[str, ...]
    truncated: tuple[bool, ...] = ()
    """Of each, whether the token limit cut it off; all false where the file does not say."""


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text with what people said about it; fields that the file lacks are None or empty."""

    id: str
    text: str
    label: int | str | None = None
    score: float | None = None
    emotions: tuple[str, ...] = ()
    source: str = ""


def load_prompts(path: str | Path, limit: int | None = None) -> list[Prompt]:
    """The prompts of a file, each once; of preferences and samples, what was answered.

    `reference` is the answer where a program can check it. A list of references has one for
    each turn, of which the first belongs to the prompt.
    """
    seen: set[str] = set()

    def first_of_its_id(row: Row) -> Prompt | None:
        prompt = _prompt(row) if "prompt" in row else None
        if prompt is None or prompt.id in seen:
            return None
        seen.add(prompt.id)
        return prompt

    return _load(path, limit, _WITH_PROMPT, first_of_its_id)


def load_demonstrations(path: str | Path, limit: int | None = None) -> list[Demonstration]:
    """Conversations to imitate; of a preference, the prompt with the better text, ties left out."""
    return _load(path, limit, (Schema.SFT, Schema.PREFERENCE), _demonstration)


def load_preferences(path: str | Path, limit: int | None = None) -> list[Preference]:
    """Judged comparisons, from our own rows or `chosen` and `rejected` ones."""
    return _load(path, limit, (Schema.PREFERENCE,), _preference)


def load_comparisons(path: str | Path, limit: int | None = None) -> list[Comparison]:
    """Pairs of answers that nobody has judged yet, or that are to be judged again.

    Raises:
        DataError: a row lacks one of the two answers.
    """

    def two_answers(row: Row) -> Comparison:
        missing = [key for key in ("a", "b") if not isinstance(row.get(key), str)]
        if missing:
            raise DataError(
                f"{path}: row {row['id']!r} has no text {' and '.join(missing)}: a comparison is a "
                "prompt with two answers, `a` and `b`"
            )
        return Comparison.from_json({key: value for key, value in row.items() if value is not None})

    return _load(path, limit, (Schema.PROMPTS, Schema.PREFERENCE), two_answers)


def load_samples(path: str | Path, limit: int | None = None) -> list[Samples]:
    """Prompts with their completions."""
    return _load(path, limit, (Schema.SAMPLES,), _samples)


def load_texts(path: str | Path, limit: int | None = None) -> list[str]:
    """The texts of a file, without their labels where it has any."""
    return _load(path, limit, (Schema.TEXT, Schema.LABELLED), lambda row: str(row["text"]))


def load_labelled(path: str | Path, limit: int | None = None) -> list[LabelledText]:
    """Texts with a label, a score or emotions."""
    return _load(path, limit, (Schema.LABELLED,), _labelled)


def _load(
    path: str | Path,
    limit: int | None,
    allowed: tuple[Schema, ...],
    record: Callable[[Row], Record | None],
) -> list[Record]:
    """The first `limit` records of a file.

    Raises:
        DataError: names up to five faults of the rows read, or a schema not among `allowed`.
    """
    checked = faultless(checked_rows(path), str(path), allowed)
    made = (record(item.row) for item in checked)
    records = list(islice((item for item in made if item is not None), limit))
    if not records and limit != 0:
        raise DataError(f"{path} has rows, but none that can be used here; see docs/data.md")
    return records


def faultless(
    items: Iterable[CheckedRow | Fault], name: str, allowed: Sequence[Schema]
) -> Iterator[CheckedRow]:
    """The rows of a place that has no fault.

    Raises:
        DataError: names up to five faults, or a schema not among `allowed`.
    """
    faults: list[str] = []
    for item in items:
        if isinstance(item, Fault):
            faults.append(str(item))
        elif item.schema not in allowed:
            raise DataError(
                f"{name} holds rows of schema {item.schema}, expected {' or '.join(allowed)}"
            )
        else:
            faults += [str(Fault(name, item.line, reason)) for reason in item.faults]
            if not faults:
                yield item
        if len(faults) >= _MAX_SHOWN:
            break
    if faults:
        shown = "\n  ".join(faults[:_MAX_SHOWN])
        raise DataError(f"{name} cannot be used; `tutelage validate` lists all faults:\n  {shown}")


def _prompt(row: Row) -> Prompt:
    reference = row.get("reference", row.get("answer"))
    if isinstance(reference, list):
        reference = reference[0]
    return Prompt.from_json(
        {**row, "id": row.get("prompt_id") or row["id"], "reference": reference}
    )


def _demonstration(row: Row) -> Demonstration | None:
    if "messages" in row:
        return Demonstration.from_json(row)
    preference = _preference(row)
    comparison = preference.comparison
    better = comparison.a if preference.p_a > 0.5 else comparison.b
    if preference.p_a == 0.5 or not better.strip():
        return None
    target = {"role": "assistant", "content": better}
    return Demonstration.from_json({**row, "messages": [*row["prompt"], target]})


def _preference(row: Row) -> Preference:
    return Preference.from_json({key: value for key, value in row.items() if value is not None})


def _samples(row: Row) -> Samples:
    items = [item if isinstance(item, dict) else {"text": item} for item in row["completions"]]
    cut = tuple(item.get("stop") == StopReason.LENGTH for item in items)
    return Samples(_prompt(row), tuple(item["text"] for item in items), cut)


def _labelled(row: Row) -> LabelledText:
    return LabelledText(
        id=row["id"],
        text=row["text"],
        label=row.get("label"),
        score=row.get("score"),
        emotions=tuple(row.get("emotions") or ()),
        source=row.get("source") or "",
    )
