"""What a lab hands over: tables for the console, figures as PNG, numbers as `summary.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from tutelage.labs.plots import png
from tutelage.tracking.atomic import storage_errors, write_bytes_atomically, write_json_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LabResult", "exercise_table", "write_result"]


@dataclass(frozen=True, slots=True)
class LabResult:
    """The outcome of a lab."""

    summary: dict[str, Any]
    """Settings and numbers, for programs."""

    tables: Sequence[Table]

    figures: Mapping[str, "Figure"] = field(default_factory=dict)
    """Figures by the name of their file, without `.png`."""


def exercise_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column names the setting and whose others are numbers."""
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False
    )
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def write_result(result: LabResult, folder: Path) -> list[Path]:
    """Writes the figures and `summary.json` into the folder, which is made where it is missing.

    A second run of the lab replaces the files of the first.

    Returns:
        The files, in the order they were written.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, figure in result.figures.items():
        files.append(folder / f"{name}.png")
        write_bytes_atomically(files[-1], png(figure))
    files.append(folder / "summary.json")
    write_json_atomically(files[-1], result.summary)
    return files
