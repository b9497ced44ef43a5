"""`tutelage feedback`: preferences in and out of a store, and what is in it."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.table import Table

from tutelage.cli.feedback_pairs import pairs_command
from tutelage.errors import ConfigError
from tutelage.pipeline.finish import open_console

if TYPE_CHECKING:
    from tutelage.feedback.summary import Summary

__all__ = ["build_feedback_app", "export", "import_", "summary"]

_HELP = """\
Keeps judgements of people and judge models in one store: a file, or a database by URL.

Example: tutelage feedback import labels.db judged.jsonl
"""
_FILES = Parameter(negative=(), show_default=False, consume_multiple=True)
_SWITCH = Parameter(negative=())

Kind = Literal["human", "ai", "verifier", "synthetic"]


def build_feedback_app(*, sort_key: int) -> App:
    """The command with one command per task; the key is its place among the other commands."""
    app = App(name="feedback", help=_HELP, sort_key=sort_key)
    commands: dict[str, Callable[..., None]] = {
        "import": import_,
        "export": export,
        "summary": summary,
    }
    for position, (name, command) in enumerate(commands.items()):
        app.command(command, name=name, sort_key=position)
    app.command(pairs_command(), name="pairs", sort_key=len(commands))
    return app


def import_(
    store: str,
    *files: str,
    split: str | None = None,
    against: Annotated[tuple[Path, ...], _FILES] = (),
    near: float | None = None,
    drop_leaks: Annotated[bool, _SWITCH] = False,
    keep_duplicates: Annotated[bool, _SWITCH] = False,
    revise: Annotated[bool, _SWITCH] = False,
    source: str = "",
    annotator: str = "",
    kind: Kind = "human",
) -> None:
    """Adds judged comparisons to a store, all or, where anything is wrong, none.

    Example: tutelage feedback import labels.db judged.jsonl --against test.jsonl

    Parameters
    ----------
    store
        A file, which is made where it is missing, or a database's URL.
    files
        Preferences as .jsonl, .jsonl.gz or .parquet, folders of Parquet files, data sets that were
        saved to disk, or names on a hub such as org/name.
    split
        Of a data set that has several.
    against
        Files of evaluation prompts, none of which may be answered by what is imported.
    near
        Count prompts as one of them from this similarity on, 0.8 say: the share of the runs of five
        words of either that both have.
    drop_leaks
        Leave out what answers an evaluation prompt, and import the rest.
    keep_duplicates
        Import what an annotator has said of the same texts under another id, too.
    revise
        Let a judgement take the place of another one of its annotator on its comparison.
    source
        The prompts' source, where rows name none.
    annotator
        Who judged, where rows do not say.
    kind
        What that annotator is.
    """
    from tutelage.feedback.exchange import Leaks, Origin, import_preferences
    from tutelage.feedback.store import PreferenceStore

    if not files:
        raise ConfigError("no file to import: tutelage feedback import STORE FILE...")
    if not against and (near is not None or drop_leaks):
        raise ConfigError("--near and --drop-leaks are about the prompts of --against: name files")
    if near is not None and not 0 < near <= 1:
        raise ConfigError(f"--near is {near:g}, expected a share above 0 and up to 1, such as 0.8")
    with PreferenceStore(store) as opened:
        outcomes = import_preferences(
            opened,
            files,
            split=split,
            leaks=Leaks(against, near, drop_leaks) if against else None,
            origin=Origin(source, annotator, kind),
            keep_duplicates=keep_duplicates,
            revise=revise,
        )
        for outcome in outcomes:
            print(
                f"{outcome.source}: {outcome.read} read, {outcome.added} added, {outcome.known} "
                f"known, {outcome.duplicates} duplicates, {outcome.leaks} leaks"
            )
        print(f"{opened.name}: {len(opened)} preferences")


def export(
    store: str, file: Path, *, kind: Kind | None = None, annotator: str | None = None
) -> None:
    """Writes the preferences that stand in a store, read at one moment.

    Example: tutelage feedback export labels.db judged.parquet

    Parameters
    ----------
    store
        A file or a database's URL.
    file
        A name that ends in .jsonl, .jsonl.gz or .parquet, or one without an ending for a folder
        that `datasets.load_from_disk` reads.
    kind
        Export only what annotators of this kind have said.
    annotator
        Export only what this one has said.
    """
    from tutelage.feedback.exchange import export_preferences
    from tutelage.feedback.store import PreferenceStore

    with PreferenceStore(store, create=False) as opened:
        count = export_preferences(opened, file, kind=kind, annotator=annotator)
    print(f"{file}: {count} preferences")


def summary(
    store: str,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    most: int = 20,
) -> None:
    """Counts what is in a store, and says how well its annotators agree.

    Example: tutelage feedback summary labels.db

    Parameters
    ----------
    store
        A file or a database's URL.
    as_json
        Print everything as JSON instead of tables.
    most
        Annotators, and pairs of them, shown; all are counted.
    """
    from tutelage.feedback.store import PreferenceStore
    from tutelage.feedback.summary import summarize

    with PreferenceStore(store, create=False) as opened:
        found = summarize(opened)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
        return
    console = open_console()
    for table in (_totals(found), _annotators(found, most), _agreement(found, most)):
        if table.row_count:
            console.print(table)


def _totals(found: "Summary") -> Table:
    rows = {
        "preferences": found.preferences,
        "comparisons": found.comparisons,
        "judged by several": found.judged_by_several,
        "ties": found.ties,
        "duplicates": found.duplicates,
        "contradictions": found.contradictions,
        "within one annotator": found.own_contradictions,
        "sources": _listed(found.sources),
        "kinds": _listed(found.kinds),
        "rounds": _listed(found.rounds),
        "the one shown as a wins": _share(found.shown_first_wins),
        "the longer one wins": _share(found.longer_wins),
        "the order decides": _share(found.order_decides),
    }
    return _table("Preferences", ("", ""), ((name, str(value)) for name, value in rows.items()))


def _annotators(found: "Summary", most: int) -> Table:
    heads = ("annotator", "kind", "preferences", "ties", "skipped", "flagged", "revised")
    rows = (
        (
            *(row.name, row.kind, str(row.preferences), str(row.ties)),
            *(str(row.skipped), str(row.flagged), str(row.revised)),
            *(str(row.shared), _share(row.accuracy)),
        )
        for row in found.annotators[:most]
    )
    return _table("Annotators", (*heads, "shared", "accuracy"), rows)


def _agreement(found: "Summary", most: int) -> Table:
    rows = (
        (
            *(pair.first, pair.second, str(pair.comparisons), _share(pair.share)),
            "none" if pair.kappa is None else f"{pair.kappa:.2f}",
        )
        for pair in found.agreement[:most]
    )
    return _table("Agreement", ("", "", "comparisons", "agree", "kappa"), rows)


def _table(title: str, heads: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=title)
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*row)
    return table


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name or '(none)'} {count}" for name, count in counts.items()) or "none"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"
