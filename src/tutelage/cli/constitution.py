"""`tutelage constitution`: look at principles, revise answers under them, prefer by them."""

from cyclopts import App
from rich.table import Table

from tutelage.cli.stages import stage_command
from tutelage.config import PreferStage, ReviseStage
from tutelage.judging.constitution import BUNDLED, load_constitution
from tutelage.pipeline.finish import open_console

__all__ = ["build_constitution_app", "show"]

_HELP = """\
Follows a constitution: answers criticised and revised, and pairs judged, under principles.

Example: tutelage constitution revise --constitution medical --model org/instruct --prompts \
prompts.jsonl --output revised
"""


def build_constitution_app(*, sort_key: int) -> App:
    """The command with one command per task; the key is its place among the other commands."""
    app = App(name="constitution", help=_HELP, sort_key=sort_key)
    app.command(stage_command(ReviseStage, "constitution revise"), name="revise", sort_key=0)
    app.command(stage_command(PreferStage, "constitution prefer"), name="prefer", sort_key=1)
    app.command(show, sort_key=2)
    return app


def show(source: str | None = None) -> None:
    """Prints a constitution with its version, or the names of those that come with the package.

    Example: tutelage constitution show medical

    Parameters
    ----------
    source
        A bundled constitution, or a file that ends in `.yaml`; its faults are listed by line.
    """
    console = open_console()
    if source is None:
        table = Table()
        for head in ("constitution", "principles", "sha256"):
            table.add_column(head)
        for name in BUNDLED:
            constitution = load_constitution(name)
            table.add_row(name, str(len(constitution.principles)), constitution.sha256[:12])
        console.print(table)
        return
    constitution = load_constitution(source)
    console.print(f"{constitution.name}, sha256 {constitution.sha256}", highlight=False)
    if constitution.preamble:
        console.print(constitution.preamble, highlight=False, markup=False)
    for principle in constitution.principles:
        about = f" ({principle.category})" if principle.category else ""
        console.print(f"\n{principle.id}{about}, weight {principle.weight:g}", style="bold")
        for text in (principle.critique, principle.revision, principle.question):
            console.print(f"  {text}", highlight=False, markup=False)
