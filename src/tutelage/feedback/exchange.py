"""Preferences into a store, checked, and out of it.

    files ──read──> all faults? ──> evaluation prompts? ──> repetitions left out ──> one transaction
                    nothing is      nothing is added,        counted
                    added           or those left out

Importing the same again changes nothing. A file with a fault, or with a judgement that contradicts
what is in the store, leaves the store as it was, and so do the files beside it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection

from tutelage.data.jsonl import read_jsonl
from tutelage.data.leakage import PromptIndex, asked
from tutelage.data.loaders import load_preferences
from tutelage.data.near import NearDuplicates
from tutelage.data.preference_files import read_preferences, write_preferences
from tutelage.errors import DataError
from tutelage.feedback.events import ConflictError
from tutelage.feedback.identity import comparison_key, p_first
from tutelage.feedback.location import is_store
from tutelage.feedback.store import PreferenceStore
from tutelage.records import Preference

__all__ = [
    "Imported",
    "Leaks",
    "Origin",
    "export_preferences",
    "import_preferences",
    "load_feedback",
]

_MAX_SHOWN = 5

Rows = Sequence[tuple[int, Preference]]


@dataclass(frozen=True, slots=True)
class Leaks:
    """Evaluation prompts that no preference may answer."""

    files: tuple[Path, ...]
    near: float | None = None
    """Similarity from which a prompt counts as one of them too (`tutelage.data.near`); without,
    only equal prompts do."""
    drop: bool = False
    """Leave such preferences out, where otherwise the import is refused."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What to say of rows that do not say it themselves."""

    source: str = ""
    """Of the prompts."""
    annotator: str = ""
    kind: Literal["human", "ai", "verifier", "synthetic"] = "human"
    """Of the annotator."""

    def fill(self, preference: Preference) -> Preference:
        """The preference with what it lacks."""
        comparison, prompt = preference.comparison, preference.comparison.prompt
        if self.source and not prompt.source:
            named = replace(prompt, source=self.source)
            preference = replace(preference, comparison=replace(comparison, prompt=named))
        if self.annotator and preference.annotator == "human":
            preference = replace(preference, annotator=self.annotator, kind=self.kind)
        return preference


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of the rows of one file; `read` is the sum of the others."""

    source: str
    read: int
    added: int
    known: int = 0
    """In the store already."""
    duplicates: int = 0
    """The same verdict of the same annotator on the same texts, under another id."""
    leaks: int = 0
    """Left out because they answer an evaluation prompt, or nearly one."""


def import_preferences(
    store: PreferenceStore,
    sources: Sequence[str | Path],
    *,
    split: str | None = None,
    leaks: Leaks | None = None,
    origin: Origin | None = None,
    keep_duplicates: bool = False,
    revise: bool = False,
) -> list[Imported]:
    """Adds the preferences of files, folders and data sets in one transaction.

    Args:
        store: where to.
        sources: what `read_preferences` reads.
        split: of data sets that have several.
        leaks: evaluation prompts to keep out.
        origin: for rows without source or annotator.
        keep_duplicates: add the same verdict of an annotator on the same texts under another id.
        revise: let a judgement take the place of another one of its annotator on its comparison.

    Raises:
        DataError: a fault, a leak or a contradiction, by file and line. Nothing is added.
    """
    filled = origin or Origin()
    apart = None if leaks is None else _Apart(leaks)
    files: list[tuple[str, int, Rows]] = []
    for source in sources:
        read = read_preferences(source, split=split)
        rows: Rows = [(line, filled.fill(row)) for line, row in read]
        kept = rows if apart is None else apart.keep(str(source), rows)
        files.append((str(source), len(rows), kept))
    results = []
    with store.transaction() as connection:
        for name, count, kept in files:
            new = kept if keep_duplicates else _without_duplicates(store, kept, connection)
            try:
                added = store.add((row for _, row in new), revise=revise, connection=connection)
            except ConflictError as error:
                line = next(line for line, row in new if row is error.preference)
                raise DataError(f"{name}:{line}: {error}") from error
            results.append(
                Imported(
                    name,
                    count,
                    added,
                    known=len(new) - added,
                    duplicates=len(kept) - len(new),
                    leaks=count - len(kept),
                )
            )
    return results


def export_preferences(
    store: PreferenceStore,
    path: str | Path,
    *,
    kind: str | None = None,
    annotator: str | None = None,
) -> int:
    """Writes what stands in a store, read at one moment, and returns the number of preferences."""
    return write_preferences(path, store.iterate(kind=kind, annotator=annotator))


def load_feedback(source: str | Path) -> list[Preference]:
    """The preferences of a store, file, folder or data set; of JSON lines as `load_preferences`."""
    if is_store(source):
        with PreferenceStore(source, create=False) as store:
            return store.preferences()
    if str(source).endswith((".jsonl", ".jsonl.gz")):
        return load_preferences(source)
    return [preference for _, preference in read_preferences(source)]


class _Apart:
    """The evaluation prompts, and which preferences answer them."""

    def __init__(self, leaks: Leaks) -> None:
        self._leaks = leaks
        self._index = PromptIndex()
        self._asked: list[tuple[str, str]] = []
        for file in leaks.files:
            for line, row in read_jsonl(file):
                self._index.add(row, str(file), line)
                self._asked.append((f"{file}:{line}", asked(row)))

    def keep(self, name: str, rows: Rows) -> Rows:
        """The rows that answer none of them.

        Raises:
            DataError: there are others, and they are not to be dropped.
        """
        found = dict(self._nearly(rows)) | dict(self._equal(rows))
        if found and not self._leaks.drop:
            shown = [f"{name}:{line}: {reason}" for line, reason in sorted(found.items())]
            more = f"\n  and {len(shown) - _MAX_SHOWN} more" if len(shown) > _MAX_SHOWN else ""
            raise DataError(
                f"{name} answers prompts of the evaluation; remove them on one side, or leave "
                "them out here (drop):\n  " + "\n  ".join(shown[:_MAX_SHOWN]) + more
            )
        return [(line, row) for line, row in rows if line not in found]

    def _equal(self, rows: Rows) -> Iterator[tuple[int, str]]:
        for line, preference in rows:
            place = self._index.find(preference.comparison.prompt.to_json())
            if place is not None:
                yield line, f"its prompt is also in {place[0]}:{place[1]}"

    def _nearly(self, rows: Rows) -> Iterator[tuple[int, str]]:
        if self._leaks.near is None:
            return
        texts = NearDuplicates(self._leaks.near)
        for number, (_, text) in enumerate(self._asked):
            texts.add(text, number)
        known = len(texts)
        for line, preference in rows if known else ():
            texts.add(asked(preference.comparison.prompt.to_json()), line)
        for line, number, similarity in texts.found(known) if known else ():
            place = self._asked[number][0]
            yield line, f"its prompt is nearly {place}, about {similarity:.0%} alike"


def _without_duplicates(
    store: PreferenceStore, rows: Rows, connection: Connection
) -> list[tuple[int, Preference]]:
    """The rows whose verdict their annotator has not given on the same texts under another id."""
    contents = [comparison_key(row.comparison) for _, row in rows]
    verdicts: dict[tuple[str, str, int], list[tuple[str, float]]] = {}
    for earlier in store.same_comparisons(contents, connection=connection):
        key = comparison_key(earlier.comparison), earlier.annotator, earlier.round
        verdicts.setdefault(key, []).append(_verdict(earlier))
    kept = []
    for content, (line, row) in zip(contents, rows, strict=True):
        said = verdicts.setdefault((content, row.annotator, row.round), [])
        name, p = _verdict(row)
        if any(name != other and math.isclose(p, q, abs_tol=1e-9) for other, q in said):
            continue
        said.append((name, p))
        kept.append((line, row))
    return kept


def _verdict(preference: Preference) -> tuple[str, float]:
    comparison = preference.comparison
    return comparison.id or comparison.prompt.id, p_first(preference)
