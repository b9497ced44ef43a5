"""Rows as they stream by, each with everything that is wrong with it.

    file ──scan_jsonl──> row ──schema, columns, ids, characters──> CheckedRow
                                                                     ├──> Report   (validate)
                                                                     └──> records  (loaders)

Memory holds a hash per id, never the rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tutelage.data.jsonl import Fault, scan_jsonl
from tutelage.data.schema import Schema, detect_schema, infer_schema, json_kind, row_faults
from tutelage.data.text import control_characters

__all__ = ["CheckedRow", "check_rows", "checked_rows", "row_texts"]

_HEAD = 20
"""Rows that decide, by majority, which schema a file has and which type a column."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A row that could be read, with what is wrong with it."""

    line: int
    row: Row
    schema: Schema
    texts: Sequence[tuple[str, str]]
    """What `row_texts` gives."""
    faults: Sequence[str]


def checked_rows(path: str | Path, schema: Schema | None = None) -> Iterator[CheckedRow | Fault]:
    """Yields each row of a file with its faults, and a `Fault` for each line that is no row.

    Args:
        path: a `.jsonl` or `.jsonl.gz` file.
        schema: what the file must hold; without it, what most of its first rows look like.
    """
    return check_rows(scan_jsonl(path), str(path), schema)


def check_rows(
    lines: Iterator[tuple[int, Row] | Fault], name: str, schema: Schema | None = None
) -> Iterator[CheckedRow | Fault]:
    """`checked_rows` of numbered rows that come from anywhere; `name` is that of the place."""
    head = list(islice(lines, _HEAD))
    first = [item[1] for item in head if not isinstance(item, Fault)]
    inferred = schema is None
    schema = schema or infer_schema(first)
    unknown = schema is None
    columns = _column_kinds(first)
    ids: dict[int, int] = {}
    for item in chain(head, lines):
        if isinstance(item, Fault):
            yield item
        elif schema is not None:
            line, row = item
            texts = list(row_texts(row))
            faults = [
                *row_faults(row, schema),
                *(_foreign_keys(row, schema) if inferred else ()),
                *_mixed_columns(row, columns),
                *_repeated_id(row, line, ids),
                *_forbidden_characters(texts, schema),
            ]
            yield CheckedRow(line, row, schema, texts, faults)
        elif unknown:
            unknown = False
            yield Fault(name, item[0], _unknown_schema(item[1]))


def _unknown_schema(row: Row) -> str:
    keys = ", ".join(map(repr, islice(row, 8))) or "none"
    return f"the keys ({keys}) fit no schema; expected one of {', '.join(Schema)}"


def _kind(value: Any) -> str:
    kind = json_kind(value)
    return "number" if kind == "integer" else kind


def _column_kinds(rows: Sequence[Row]) -> dict[str, str]:
    votes: dict[str, Counter[str]] = {}
    for row in rows:
        for key, value in row.items():
            if value is not None:
                votes.setdefault(key, Counter())[_kind(value)] += 1
    return {key: counts.most_common(1)[0][0] for key, counts in votes.items()}


def _mixed_columns(row: Row, columns: dict[str, str]) -> Iterator[str]:
    for key, value in row.items():
        # One reference, or one for each turn: the only field with two forms.
        if value is None or key == "reference":
            continue
        kind = _kind(value)
        if columns.setdefault(key, kind) != kind:
            yield f"{key} is {kind} here and {columns[key]} in other rows"


def _foreign_keys(row: Row, schema: Schema) -> Iterator[str]:
    # Fewer keys than the schema wants are reported one by one as missing.
    found = detect_schema(row)
    if found is not schema and found in (Schema.PREFERENCE, Schema.SAMPLES):
        yield f"a row of schema {found} in a file of schema {schema}"


def _repeated_id(row: Row, line: int, ids: dict[int, int]) -> Iterator[str]:
    name = row.get("id")
    if not isinstance(name, str):
        return
    # Several annotators judge one comparison, and each of them in several rounds.
    key = (name, str(row.get("annotator")), str(row.get("round")))
    if (first := ids.setdefault(hash(key), line)) != line:
        yield f"id {name!r} is already that of line {first}"


def _forbidden_characters(texts: Iterable[tuple[str, str]], schema: Schema) -> Iterator[str]:
    """Control characters; text as found in the world may hold them, but never NUL.

    What a policy wrote is data as it is, whatever it holds.
    """
    found_text = schema in (Schema.TEXT, Schema.LABELLED)
    for place, text in texts:
        if place in ("a", "b") or place.startswith("completions["):
            continue
        found = control_characters(text)
        if found and ("U+0000" in found or not found_text):
            yield f"{place} holds the control characters {', '.join(found)}; remove them"


_TEXT_KEYS = ("text", "chosen", "rejected", "a", "b", "sent_more", "sent_less", "answer")


def row_texts(row: Row) -> Iterator[tuple[str, str]]:
    """Each text of a row that models will read or write, with the place it stands at."""
    for key in ("messages", "prompt"):
        for i, message in enumerate(_array(row.get(key))):
            if isinstance(message, dict) and isinstance(message.get("content"), str):
                yield f"{key}[{i}].content", message["content"]
    for i, item in enumerate(_array(row.get("completions"))):
        text = item.get("text") if isinstance(item, dict) else item
        if isinstance(text, str):
            yield f"completions[{i}]", text
    for key in _TEXT_KEYS:
        if isinstance(row.get(key), str):
            yield key, row[key]


def _array(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
