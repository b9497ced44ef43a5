"""The end of a run: recipe.yaml, summary.json, report.html and the table on the console."""

from datetime import datetime
from pathlib import Path

from rich.console import Console

from tutelage.config import Recipe
from tutelage.config.document import to_yaml
from tutelage.errors import MissingExtraError
from tutelage.tracking.atomic import write_text_atomically
from tutelage.tracking.reader import RunRecord, read_run
from tutelage.tracking.summary import write_summary
from tutelage.tracking.table import evaluation_table

__all__ = ["busy_seconds", "finish_run", "open_console", "show_report", "write_recipe"]

_WIDTH = 120
"""Columns where the output is no terminal."""


def open_console(*, quiet: bool = False) -> Console:
    """Standard output; wide enough for the table where it is no terminal."""
    console = Console(quiet=quiet)
    return console if console.is_terminal else Console(quiet=quiet, width=_WIDTH)


def write_recipe(recipe: Recipe, run_folder: Path) -> None:
    """Writes the resolved recipe, defaults and options included, as `recipe.yaml`."""
    write_text_atomically(run_folder / "recipe.yaml", to_yaml(recipe.to_json()))


def finish_run(
    recipe: Recipe, run_folder: Path, seconds: float | None, console: Console, changed: bool
) -> Path | None:
    """Writes summary and report of a run and shows the table; returns the report's path.

    Args:
        recipe: What was run.
        run_folder: Holds the finished stages.
        seconds: Wall time where one command ran everything; otherwise it is added up.
        console: Where the table goes.
        changed: Whether anything ran; without that an existing report is kept.
    """
    if changed or not (run_folder / "summary.json").exists():
        wall = busy_seconds(read_run(run_folder)) if seconds is None else seconds
        write_summary(run_folder, name=recipe.name, seed=recipe.seed, seconds=wall)
    return show_report(run_folder, console, render=changed)


def show_report(run_folder: Path, console: Console, *, render: bool = True) -> Path | None:
    """Shows the table of the evaluation and where the report is, rendering it where asked.

    Raises:
        CheckpointError: no stage of the run is finished, or a file is damaged.
    """
    for evaluation in read_run(run_folder).evaluations:
        console.print(evaluation_table(evaluation))
    # The templates' engine would double the time of `tutelage --help`.
    from tutelage.tracking.report import render_report

    report = run_folder / "report.html"
    if render or not report.exists():
        try:
            report = render_report(run_folder)
        except MissingExtraError as error:
            console.print(f"no report: {error}", markup=False, highlight=False, soft_wrap=True)
            return None
    console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
    return report


def busy_seconds(run: RunRecord) -> float:
    """Time in which at least one stage ran, pauses between commands left out."""
    # A resumed stage began earlier than its last process did.
    ends = [datetime.fromisoformat(stage.manifest.finished).timestamp() for stage in run.stages]
    spans = sorted(
        (end - stage.manifest.seconds, end) for stage, end in zip(run.stages, ends, strict=True)
    )
    total, end = 0.0, spans[0][0]
    for started, finished in spans:
        total += max(0.0, finished - max(started, end))
        end = max(end, finished)
    return total
