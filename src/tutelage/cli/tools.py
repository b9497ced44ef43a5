"""`tutelage report`, `tutelage compare`, `tutelage validate` and `tutelage config`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tutelage.cli.run import Overrides, read_recipe
from tutelage.config.document import to_yaml
from tutelage.config.reference import configuration_reference
from tutelage.errors import ConfigError
from tutelage.pipeline.finish import open_console, show_report
from tutelage.tracking.comparison import Comparison
from tutelage.tracking.reader import read_run

if TYPE_CHECKING:
    from tutelage.data.validate import FileSummary

__all__ = ["compare", "config", "report", "validate"]

_WRONG_DATA = 2
_SEVERAL = Parameter(negative=(), show_default=False, consume_multiple=True)


def report(run: Path) -> None:
    """Writes report.html of a run again, from the files in its folder.

    Example: tutelage report runs/quickstart

    Parameters
    ----------
    run
        The run folder.
    """
    show_report(run, open_console())


def compare(*runs: Path, output: Path | None = None) -> None:
    """Compares the models of one or more finished runs of a recipe, in one table.

    Several runs of different seeds give means over seeds; the intervals then cover data, labels,
    training and prompts, all of which a seed decides. One run keeps its own, over prompts. The
    table goes to `comparison.md`, everything with the value of each run to `comparison.json`.

    Example: tutelage compare runs/seed0 runs/seed1 runs/seed2 --output runs/compared

    Parameters
    ----------
    runs
        The run folders.
    output
        The folder to write into [default: runs/NAME-compared, by the recipe's name].
    """
    comparison = Comparison.of([read_run(run) for run in runs])
    folder = output or Path("runs") / f"{comparison.runs[0].name}-compared"
    comparison.write(folder)
    console = open_console()
    console.print(comparison.overview)
    written = f"{folder / 'comparison.md'}, {folder / 'comparison.json'}"
    console.print(written, markup=False, highlight=False, soft_wrap=True)


def validate(
    *files: Path,
    schema: str | None = None,
    against: Annotated[
        tuple[Path, ...], Parameter(negative=(), show_default=False, consume_multiple=True)
    ] = (),
    near: float | None = None,
    most: int = 100,
) -> int:
    """Checks data files: every fault by file, line and reason; exit code 2 where there is one.

    Reads JSON lines, also compressed by gzip, and writes nothing.

    Example: tutelage validate train.jsonl.gz --against test.jsonl

    Parameters
    ----------
    files
        The files to check.
    schema
        What every file must hold: text, labelled, prompts, sft, preference and so on. Without
        it each row is checked against the schema it looks like.
    against
        Files none of whose prompts may occur in the others: the evaluation's.
    near
        Warn of texts that are nearly another of the file, or nearly a prompt of the files in
        `--against`: the share, 0.8 say, of the runs of five words of either that both have.
    most
        Faults and warnings shown; all are counted.
    """
    from tutelage.data.validate import validate as check

    if not files:
        raise ConfigError("no file to check: tutelage validate FILE...")
    outcome = check(files, schema=schema, against=against, near=near, max_listed=most)
    for fault in outcome.faults:
        print(fault)
    for warning in outcome.warnings:
        print(f"{warning} (warning)")
    for summary in outcome.files:
        print(
            f"{summary.file}: {_counted(summary.rows, 'row')} of "
            f"{summary.schema or 'no known schema'}, {_counted(summary.faults, 'fault')}, "
            f"{_counted(summary.warnings, 'warning')}, "
            f"{_counted(summary.duplicates, 'duplicate')}, {_counted(summary.leaks, 'leak')}"
            f"{_nearly(summary)}"
        )
    return 0 if outcome.ok else _WRONG_DATA


def _nearly(summary: "FileSummary") -> str:
    if summary.near_duplicates is None or summary.near_leaks is None:
        return ""
    return (
        f", {_counted(summary.near_duplicates, 'near-duplicate')}, "
        f"{_counted(summary.near_leaks, 'near-leak')}"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def config(recipe: Path | None = None, *overrides: Overrides, reference: bool = False) -> None:
    """Prints a recipe as it would be run: checked, with defaults and options filled in.

    Example: tutelage config recipes/quickstart.yaml --sft.epochs 2

    Parameters
    ----------
    recipe
        The recipe file.
    reference
        Print the reference of all keys as Markdown instead.
    """
    if reference:
        print(configuration_reference(), end="")
    elif recipe is None:
        raise ConfigError("no recipe: tutelage config RECIPE, or tutelage config --reference")
    else:
        print(to_yaml(read_recipe(recipe, list(overrides)).to_json()), end="")
