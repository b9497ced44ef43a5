"""`tutelage feedback`: preferences in and out of a store, and what is in it."""

from pathlib import Path

from cyclopts import App

__all__ = ["build_feedback_app", "export", "import_"]

_HELP = """\
Keeps judgements of people and judge models in one store: a file, or a database by URL.

Example: tutelage feedback import labels.db judged.jsonl
"""


def build_feedback_app(*, sort_key: int) -> App:
    """The command with one command per task; the key is its place among the other commands."""
    app = App(name="feedback", help=_HELP, sort_key=sort_key)
    commands = {"import": import_, "export": export}
    for position, (name, command) in enumerate(commands.items()):
        app.command(command, name=name, sort_key=position)
    return app


def import_(store: str, *files: Path) -> None:
    """Adds judged comparisons to a store.

    Example: tutelage feedback import labels.db judged.jsonl

    Parameters
    ----------
    store
        A file, which is made where it is missing, or a database's URL.
    files
        Preferences as JSON lines.
    """
    from tutelage.feedback import PreferenceStore

    with PreferenceStore(store) as opened:
        for file in files:
            print(f"{file}: {opened.import_jsonl(file)} new preferences")


def export(store: str, file: Path) -> None:
    """Writes the preferences of a store to a file.

    Example: tutelage feedback export labels.db judged.jsonl

    Parameters
    ----------
    store
        A file or a database's URL.
    file
        What to write, as JSON lines.
    """
    from tutelage.feedback import PreferenceStore

    with PreferenceStore(store) as opened:
        print(f"{file}: {opened.export_jsonl(file)} preferences")
