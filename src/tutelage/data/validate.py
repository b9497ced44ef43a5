"""`tutelage validate`: all that is wrong with data files, and what is in them.

Faults make a file unusable: a key is missing, a type is wrong, the preferred text equals the
other one, a prompt is also in the test set. Warnings are for a person to judge: special tokens
within text, traces of a wrong encoding, texts that are nearly another. Both name file and line.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.data.checking import CheckedRow, checked_rows
from tutelage.data.jsonl import Fault, scan_jsonl
from tutelage.data.leakage import PromptIndex, asked
from tutelage.data.schema import Schema
from tutelage.data.text import normalize, suspicions
from tutelage.errors import DataError

__all__ = ["FileSummary", "Report", "validate"]

_QUANTILES = (("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
_MAX_DISTINCT = 1000
"""Labels and sources counted one by one; rarer ones come under `(other)`."""


@dataclass(slots=True)
class FileSummary:
    """What one file holds; counts are of rows."""

    file: str
    schema: Schema | None = None
    rows: int = 0
    """Rows that could be read, faulty ones included."""
    faults: int = 0
    warnings: int = 0
    duplicates: int = 0
    """Rows whose texts another row before them has, ids aside."""
    leaks: int = 0
    """Rows that ask a prompt of the files to keep apart."""
    near_duplicates: int | None = None
    """Rows whose texts nearly are those of a row before them; None where nobody asked."""
    near_leaks: int | None = None
    """Rows that ask nearly a prompt of the files to keep apart."""
    too_long: int = 0
    """Rows over `max_length`, which a stage with that limit leaves out."""
    sources: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    """`labelled`: rows per label or emotion. `preference`: whether a, b or neither is better;
    rows of the chosen/rejected form count as a."""
    longer_is_better: float | None = None
    """`preference`: share of decided pairs in which the longer text is the better one."""
    lengths: dict[str, dict[str, int]] = field(default_factory=dict)
    """Quantiles of the length of prompts, completions or texts."""

    def to_json(self) -> dict[str, Any]:
        """All fields, counters from the most frequent down."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "sources": dict(self.sources.most_common()),
            "labels": dict(self.labels.most_common()),
        }


@dataclass(slots=True)
class Report:
    """The outcome of `validate`."""

    files: list[FileSummary] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    """All faults in the order of the files, up to `max_listed` of them."""
    warnings: list[Fault] = field(default_factory=list)
    """The same for warnings."""
    num_faults: int = 0
    """All faults, listed or not."""
    num_warnings: int = 0
    max_listed: int = 10_000
    """Bounds memory when every line of a large file is wrong."""

    @property
    def ok(self) -> bool:
        """Whether there is no fault; warnings do not count."""
        return self.num_faults == 0

    def to_json(self) -> dict[str, Any]:
        """The report as JSON, faults and warnings as `file:line: reason`."""
        return {
            "ok": self.ok,
            "num_faults": self.num_faults,
            "num_warnings": self.num_warnings,
            "faults": [str(fault) for fault in self.faults],
            "warnings": [str(warning) for warning in self.warnings],
            "files": [summary.to_json() for summary in self.files],
        }

    def add_fault(self, fault: Fault) -> None:
        """Counts a fault and lists it while there is room."""
        self.num_faults += 1
        if len(self.faults) < self.max_listed:
            self.faults.append(fault)

    def add_warning(self, warning: Fault) -> None:
        """Counts a warning and lists it while there is room."""
        self.num_warnings += 1
        if len(self.warnings) < self.max_listed:
            self.warnings.append(warning)


def validate(
    paths: Sequence[str | Path],
    *,
    schema: Schema | str | None = None,
    against: Sequence[str | Path] = (),
    max_length: int | None = None,
    length: Callable[[str], int] = len,
    near: float | None = None,
    max_listed: int = 10_000,
) -> Report:
    """Reads files to their end and reports every fault.

    Args:
        paths: the files to check, each on its own: ids may recur from file to file.
        schema: what all of them must hold; without it each file's rows decide.
        against: files, of evaluation prompts say, none of whose prompts may occur in `paths`.
        max_length: length above which a row counts as too long.
        length: measures a text; characters unless a tokenizer's count is passed.
        near: similarity, above 0 and up to 1, from which texts count as nearly the same: the share
            of the runs of five words of either that both have. Left out, nobody looks.
        max_listed: faults, and warnings, kept with their text; all are counted.

    Raises:
        DataError: `schema` is no schema, `near` no such share, or a file is on both sides.
    """
    both = {Path(path).resolve() for path in paths} & {Path(path).resolve() for path in against}
    if both:
        raise DataError(f"{min(both)} cannot be compared with itself: name it on one side only")
    if near is not None and not 0 < near <= 1:
        raise DataError(f"near is {near:g}, expected a share above 0 and up to 1, such as 0.8")
    expected = _schema(schema)
    report = Report(max_listed=max_listed)
    kept_apart = _index(against, report)
    for path in paths:
        summary = _Summary(str(path), length, max_length)
        if near is not None:
            summary.near = _Near(near, against)
        for item in checked_rows(path, expected):
            if isinstance(item, Fault):
                summary.result.faults += 1
                report.add_fault(item)
            else:
                summary.add(item, kept_apart, report)
        report.files.append(summary.finish(report))
    return report


def _schema(name: Schema | str | None) -> Schema | None:
    try:
        return None if name is None else Schema(name)
    except ValueError:
        raise DataError(f"{name!r} is no schema; expected one of {', '.join(Schema)}") from None


def _index(paths: Sequence[str | Path], report: Report) -> PromptIndex:
    prompts = PromptIndex()
    for path in paths:
        for item in scan_jsonl(path):
            if isinstance(item, Fault):
                report.add_fault(item)
            else:
                prompts.add(item[1], str(path), item[0])
    return prompts


class _Near:
    """What in one file nearly is another row of it, or nearly a prompt to keep apart."""

    def __init__(self, threshold: float, against: Sequence[str | Path]) -> None:
        # numpy, which nothing else of a validation needs.
        from tutelage.data.near import NearDuplicates

        self._rows, self._prompts = NearDuplicates(threshold), NearDuplicates(threshold)
        self._apart: list[tuple[str, int]] = []
        for path in against:
            for item in scan_jsonl(path):
                if not isinstance(item, Fault):
                    self._prompts.add(asked(item[1]), len(self._apart))
                    self._apart.append((str(path), item[0]))
        self._known = len(self._prompts)

    def add(self, checked: CheckedRow, *, duplicate: bool, leaked: bool) -> None:
        """Remembers what is new in a row; what another says word for word is counted elsewhere."""
        if not duplicate:
            self._rows.add("\n".join(text for _, text in checked.texts), checked.line)
        if self._known and not leaked:
            self._prompts.add(asked(checked.row), checked.line)

    def finish(self, file: FileSummary, report: Report) -> None:
        """Counts what was found, and warns of each."""
        near = self._rows.found()
        leaks = self._prompts.found(self._known) if self._known else []
        file.near_duplicates, file.near_leaks = len(near), len(leaks)
        file.warnings += len(near) + len(leaks)
        for line, earlier, similarity in near:
            reason = f"is nearly line {earlier}, about {similarity:.0%} alike"
            report.add_warning(Fault(file.file, line, reason))
        for line, index, similarity in leaks:
            place = ":".join(map(str, self._apart[index]))
            reason = f"its prompt is nearly {place}, about {similarity:.0%} alike"
            report.add_warning(Fault(file.file, line, reason))


class _Summary:
    """Adds up one file row by row."""

    near: _Near | None = None

    def __init__(self, file: str, length: Callable[[str], int], max_length: int | None) -> None:
        self.result = FileSummary(file)
        self._length, self._max_length = length, max_length
        self._seen: set[int] = set()
        self._lengths: dict[str, array[int]] = {}
        self._longer = self._decided = 0

    def add(self, checked: CheckedRow, kept_apart: PromptIndex, report: Report) -> None:
        """Counts a row and hands its faults and warnings to the report."""
        file, row = self.result, checked.row
        file.rows += 1
        file.schema = checked.schema
        faults = list(checked.faults)
        leak = kept_apart.find(row) if len(kept_apart) else None
        if leak:
            file.leaks += 1
            faults.append(f"its prompt is also in {leak[0]}:{leak[1]}; remove it on one side")
        for reason in faults:
            report.add_fault(Fault(file.file, checked.line, reason))
        file.faults += len(faults)
        for place, text in checked.texts:
            for reason in suspicions(text):
                file.warnings += 1
                report.add_warning(Fault(file.file, checked.line, f"{place} {reason}"))
        duplicate = self._count_duplicate([text for _, text in checked.texts])
        if self.near:
            self.near.add(checked, duplicate=duplicate, leaked=leak is not None)
        # Statistics of a row that is not what it should be would mislead.
        if not checked.faults:
            self._count(checked, report)

    def _count_duplicate(self, texts: list[str]) -> bool:
        content = hash(tuple(map(normalize, texts)))
        duplicate = content in self._seen
        self.result.duplicates += duplicate
        self._seen.add(content)
        return duplicate

    def _count(self, checked: CheckedRow, report: Report) -> None:
        row = checked.row
        if isinstance(row.get("source"), str):
            _count(self.result.sources, row["source"])
        longest = 0
        for part, texts in _parts(checked).items():
            sizes = [sum(map(self._length, text)) for text in texts]
            self._lengths.setdefault(part, array("q")).extend(sizes)
            longest += max(sizes)
        self.result.too_long += self._max_length is not None and longest > self._max_length
        if checked.schema is Schema.LABELLED:
            self._count_labels(row)
        elif checked.schema is Schema.PREFERENCE:
            self._count_preference(row, report, checked.line)

    def _count_labels(self, row: dict[str, Any]) -> None:
        label = row.get("label")
        for name in [label] if label is not None else row.get("emotions") or []:
            _count(self.result.labels, str(name))

    def _count_preference(self, row: dict[str, Any], report: Report, line: int) -> None:
        if "chosen" in row:
            a, b, p_a = row["chosen"], row["rejected"], 1.0
        else:
            a, b, p_a = row["a"], row["b"], row["p_a"]
        self.result.labels["tie" if p_a == 0.5 else "a" if p_a > 0.5 else "b"] += 1
        if p_a != 0.5 and len(a) != len(b):
            self._decided += 1
            self._longer += (len(a) > len(b)) == (p_a > 0.5)
        if normalize(a).casefold() == normalize(b).casefold():
            self.result.warnings += 1
            reason = "the two texts differ in upper and lower case only"
            report.add_warning(Fault(self.result.file, line, reason))

    def finish(self, report: Report) -> FileSummary:
        """The summary with its quantiles and shares."""
        if self.near:
            self.near.finish(self.result, report)
        self.result.lengths = {
            part: _quantiles(sorted(lengths)) for part, lengths in self._lengths.items()
        }
        if self._decided:
            self.result.longer_is_better = self._longer / self._decided
        return self.result


def _count(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < _MAX_DISTINCT else "(other)"] += 1


def _parts(checked: CheckedRow) -> dict[str, list[list[str]]]:
    """Texts of a row whose lengths are counted; those in one inner list count as one."""
    prompt: list[str] = []
    others: list[str] = []
    for place, text in checked.texts:
        (prompt if place.startswith(("prompt[", "messages[")) else others).append(text)
    if checked.schema is Schema.SFT:
        others.append(prompt.pop())
    part = "text" if checked.schema in (Schema.TEXT, Schema.LABELLED) else "completion"
    parts = {"prompt": [prompt] if prompt else [], part: [[text] for text in others]}
    return {name: texts for name, texts in parts.items() if texts}


def _quantiles(lengths: Sequence[int]) -> dict[str, int]:
    last = len(lengths) - 1
    return {name: lengths[round(share * last)] for name, share in _QUANTILES} if lengths else {}
