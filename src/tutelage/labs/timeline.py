"""Milestones from the perceptron to GPT-4, read from `timeline.yaml` and drawn as one figure.

The axis is true to scale, and labels are spread evenly beside it, because half of the milestones
fall into the last ten of its sixty-six years.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.config.document import read_document
from tutelage.errors import DataError
from tutelage.labs.plots import COLOURS, INK, MUTED, panels
from tutelage.labs.result import LabResult, exercise_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["THREADS", "Milestone", "read_milestones", "timeline_lab"]

THREADS = ("networks", "learning from reward", "language", "alignment")
"""The lines of work that meet in an aligned language model."""

_DATA = Path(__file__).with_name("timeline.yaml")


@dataclass(frozen=True, slots=True)
class Milestone:
    """One entry of the data file."""

    year: int
    title: str
    thread: str
    why: str
    """One line: what it made possible."""

    source: str


def read_milestones(path: Path = _DATA) -> list[Milestone]:
    """The milestones of a file in order of years; those of one year keep the file's order.

    Raises:
        ConfigError: the file is missing or no YAML.
        DataError: an entry lacks a key, has an unknown one, or names an unknown thread.
    """
    document = read_document(path)
    names = {field.name for field in fields(Milestone)}
    found = []
    for index, entry in enumerate(document.values.get("milestones", [])):
        place = document.place(("milestones", index))
        if not isinstance(entry, dict) or set(entry) != names:
            raise DataError(f"{place}: expected the keys {', '.join(sorted(names))}")
        if type(entry["year"]) is not int:
            raise DataError(f"{place}: year {entry['year']!r} is no whole number")
        if entry["thread"] not in THREADS:
            raise DataError(
                f"{place}: thread {entry['thread']!r}, expected one of {', '.join(THREADS)}"
            )
        found.append(Milestone(**entry))
    if not found:
        raise DataError(f"{path} has no milestones: expected a list under that key")
    return sorted(found, key=lambda milestone: milestone.year)


def timeline_lab(path: Path = _DATA) -> LabResult:
    """The milestones of a file as table and figure.

    Raises:
        ConfigError, DataError: see `read_milestones`.
        MissingExtraError: matplotlib is not installed.
    """
    milestones = read_milestones(path)
    first, last = milestones[0].year, milestones[-1].year
    table = exercise_table(
        f"{len(milestones)} milestones, {first}-{last}",
        ["year", "milestone", "why it matters"],
        [[str(one.year), one.title, one.why] for one in milestones],
    )
    for column in table.columns[1:]:
        column.justify = "left"
    rows = [{field.name: getattr(one, field.name) for field in fields(one)} for one in milestones]
    return LabResult(
        summary={"lab": "timeline", "milestones": rows},
        tables=[table],
        figures={"timeline": _figure(milestones)},
    )


def _figure(milestones: list[Milestone]) -> "Figure":
    """Years run down the left; each dot leads to its label, and labels are equally far apart."""
    colours = dict(zip(THREADS, COLOURS, strict=False))
    first, last = milestones[0].year, milestones[-1].year
    count = len(milestones)
    figure, (axes,) = panels(1, 1, width=12, height=1.6 + 0.36 * count, grid=False)
    axes.set_xlim(-0.35, 10)
    axes.set_ylim(count - 0.4, -2.0)
    axes.set_axis_off()

    def place(year: int) -> float:
        return (year - first) / max(last - first, 1) * (count - 1)

    axes.plot([0, 0], [place(first), place(last)], color=MUTED, linewidth=1.5)
    for decade in range(first - first % 10 + 10, last + 1, 10):
        axes.plot([-0.06, 0.06], [place(decade)] * 2, color=MUTED, linewidth=1)
        axes.text(-0.12, place(decade), str(decade), ha="right", va="center", color=MUTED)
    for row, one in enumerate(milestones):
        colour = colours[one.thread]
        y = place(one.year)
        axes.plot([0, 0.6, 1.0], [y, row, row], color=colour, alpha=0.4, linewidth=1, zorder=0)
        axes.plot([0], [y], marker="o", color=colour, markersize=7, markeredgecolor="white")
        axes.text(1.08, row, str(one.year), va="center", color=MUTED)
        axes.text(1.6, row, one.title, va="center", color=colour, weight="bold")
        axes.text(3.8, row, one.why, va="center", color=INK)
    axes.text(-0.35, -1.4, f"Milestones {first}-{last}", va="center", weight="bold", fontsize=12)
    for thread, x in zip(THREADS, (3.88, 5.1, 7.0, 8.2), strict=True):
        axes.plot([x], [-1.4], marker="o", color=colours[thread], markersize=7)
        axes.text(x + 0.12, -1.4, thread, va="center", color=MUTED)
    return figure
