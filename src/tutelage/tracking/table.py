"""The tables a run ends with: each model measured in the same ways, on the console.

`evaluation_table` has a column per model and every measure; `Overview` has a row per model and
the measures that decide, for more models than columns fit. What is wider than the console goes on
in a second table below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from tutelage.tracking.evaluation_record import EvaluationRecord, Measure, Model
from tutelage.tracking.format import decimals_for, number, one_line

__all__ = ["MOST_COLUMNS", "Overview", "evaluation_table"]

MOST_COLUMNS = 5
"""Models side by side; more are shown one below the other."""

_DECISIVE = ("gold", "proxy", "kl", "length", "cost")
"""Roles of the measures in an overview, in its order."""

_MARKS = {"better": (" ✓", "green"), "worse": (" ✗", "red")}
_MINUS = "\u2212"


def evaluation_table(record: EvaluationRecord) -> RenderableType:
    """A row per measure, a column per model; of many models the overview.

    A mark tells what a colour would, so that the table reads the same in a pipe.
    """
    if len(record.models) > MOST_COLUMNS:
        return Overview(record)
    table = _empty(f"± 95 % interval; {_legend(record)}")
    for model in record.models:
        table.add_column(Text(one_line(model.label)), justify="right")
    for measure in record.measures:
        decimals = record.decimals(measure)
        cells = [_cell(record, model, measure, decimals) for model in record.models]
        table.add_row(_label(measure), *cells)
    return table


@dataclass(frozen=True)
class Overview:
    """A row per model: gold, what it gained, proxy, KL, length and what the model took to make."""

    record: EvaluationRecord
    spread: str = "± 95 % interval over prompts"
    """What the intervals are over."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many tables as the console's width asks for, one below the other."""
        left = self._columns()
        while left:
            count = len(left)
            while count > 1 and _width(self._table(left[:count])) > options.max_width:
                count -= 1
            yield self._table(left[:count])
            left = left[count:]
        yield Text(f"{self.spread}; {_legend(self.record)}", style="dim")

    def _table(self, columns: Sequence["_Column"]) -> Table:
        table = _empty()
        for column in columns:
            table.add_column(Text(column.head), justify="right", width=column.width)
        for index, model in enumerate(self.record.models):
            table.add_row(Text(one_line(model.label)), *(column.cells[index] for column in columns))
        return table

    def to_markdown(self) -> str:
        """The same as a Markdown table, with its caption below."""
        columns = self._columns()
        lines = [
            ["Model", *(column.head for column in columns)],
            ["---", *("---:" for _ in columns)],
            *(
                [one_line(model.label), *(column.cells[index].plain for column in columns)]
                for index, model in enumerate(self.record.models)
            ),
        ]
        table = "\n".join(
            "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in line) + " |"
            for line in lines
        )
        return f"{table}\n\n{self.spread}; {_legend(self.record)}.\n"

    def _columns(self) -> list["_Column"]:
        columns = []
        for role in _DECISIVE:
            for measure in self.record.measures:
                if measure.role != role:
                    continue
                decimals = self._decimals(measure)
                cells = [
                    _cell(self.record, model, measure, decimals, marked=False)
                    for model in self.record.models
                ]
                columns.append(_Column(_label(measure).plain, cells))
                if role == "gold":
                    columns.append(self._gains(measure, decimals))
        return columns

    def _decimals(self, measure: Measure) -> int:
        """Enough for the surest difference of those that decide: the others are seen beside it."""
        found = [row for row in self.record.differences if row.measure == measure.key]
        if measure.role != "gold" or not found:
            return self.record.decimals(measure)
        surest = min(found, key=lambda row: row.high - row.low)
        return decimals_for([(surest.low, surest.high)], measure.unit)

    def _gains(self, measure: Measure, decimals: int) -> "_Column":
        """The differences to the baseline, which are paired and decide about better or worse."""
        record = self.record
        cells = []
        for model in record.models:
            found = record.difference(model.name, measure.key)
            if found is None:
                cells.append(Text("  "))
                continue
            text = Text(f"{measure.scale * found.mean:+,.{decimals}f}")
            _add_half(text, measure, found.mean, found.low, found.high, decimals)
            cells.append(_marked(text, record.change(model, measure)))
        return _Column(f"{measure.label} {_MINUS} {one_line(record.baseline.label)}", cells)


@dataclass(frozen=True)
class _Column:
    head: str
    cells: list[Text]
    """One for each model."""

    @property
    def width(self) -> int:
        """Of the widest cell; the head is broken into words, none of them in two."""
        return max(*(cell.cell_len for cell in self.cells), *map(len, self.head.split()))


def _width(table: Table) -> int:
    """Columns of a console that the table takes where nothing limits it."""
    console = Console(width=10_000)
    return console.measure(table).maximum


def _empty(caption: str = "") -> Table:
    """A table with an unnamed first column."""
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=caption or None,
        caption_justify="left",
        caption_style="dim",
        pad_edge=False,
    )
    table.add_column("")
    return table


def _legend(record: EvaluationRecord) -> str:
    return f"✓ better, ✗ worse than {one_line(record.baseline.label)}, beyond chance"


def _label(measure: Measure) -> Text:
    unit = f" ({measure.unit})" if measure.unit else ""
    return Text(one_line(measure.label + unit))


def _cell(
    record: EvaluationRecord,
    model: Model,
    measure: Measure,
    decimals: int,
    *,
    marked: bool = True,
) -> Text:
    estimate = model.measures.get(measure.key)
    if estimate is None:
        return Text("n/a  " if marked else "n/a", style="dim")
    text = Text(number(measure.scale * estimate.mean, decimals=decimals))
    _add_half(text, measure, estimate.mean, estimate.low, estimate.high, decimals)
    if not marked:
        return text
    return _marked(text, record.change(model, measure) if measure.is_evidence else None)


def _add_half(
    text: Text, measure: Measure, mean: float, low: float, high: float, decimals: int
) -> None:
    if low < high:
        half = max(high - mean, mean - low)
        text.append(f" ±{number(measure.scale * half, decimals=decimals)}", style="dim")


def _marked(text: Text, change: Literal["better", "worse"] | None) -> Text:
    mark, style = _MARKS.get(change or "", ("  ", ""))
    return text.append(mark, style=style)
