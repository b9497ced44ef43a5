"""The table a run ends with: each model measured in the same ways, on the console."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from tutelage.tracking.evaluation_record import EvaluationRecord, Measure, Model
from tutelage.tracking.format import number, one_line

__all__ = ["evaluation_table"]

_MARKS = {"better": (" ✓", "green"), "worse": (" ✗", "red")}


def evaluation_table(evaluation: Mapping[str, Any]) -> Table:
    """A row per measure, a column per model, from the content of `evaluation.json`.

    A mark tells what a colour would, so that the table reads the same in a pipe.
    """
    record = EvaluationRecord.from_json(evaluation)
    baseline = one_line(record.baseline.label)
    caption = f"± 95 % interval; ✓ better, ✗ worse than {baseline}, beyond chance"
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=caption,
        caption_justify="left",
        caption_style="dim",
        pad_edge=False,
    )
    table.add_column("")
    for model in record.models:
        table.add_column(Text(one_line(model.label)), justify="right")
    for measure in record.measures:
        decimals = record.decimals(measure)
        cells = [_cell(record, model, measure, decimals) for model in record.models]
        table.add_row(_label(measure), *cells)
    return table


def _label(measure: Measure) -> Text:
    unit = f" ({measure.unit})" if measure.unit else ""
    return Text(one_line(measure.label + unit))


def _cell(record: EvaluationRecord, model: Model, measure: Measure, decimals: int) -> Text:
    estimate = model.measures.get(measure.key)
    if estimate is None:
        return Text("n/a  ", style="dim")
    text = Text(number(measure.scale * estimate.mean, decimals=decimals))
    if estimate.low < estimate.high:
        half = max(estimate.high - estimate.mean, estimate.mean - estimate.low)
        text.append(f" ±{number(measure.scale * half, decimals=decimals)}", style="dim")
    change = record.change(model, measure) if measure.is_evidence else None
    mark, style = _MARKS.get(change or "", ("  ", ""))
    return text.append(mark, style=style)
