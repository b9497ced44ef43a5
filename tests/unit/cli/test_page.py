import re
import shlex
from pathlib import Path

import pytest

from tutelage import errors
from tutelage.cli.main import build_app

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "command-line.md").read_text("utf-8")
SHOWN = re.findall(r"^\$ tutelage (.*)$", PAGE, re.MULTILINE)


def test_page_lists_every_command():
    listed = re.findall(r"^\| `tutelage ([\w-]+)", PAGE, re.MULTILINE)
    assert list(dict.fromkeys(listed)) == [name for name in build_app() if name[0] != "-"]


@pytest.mark.parametrize("line", SHOWN)
def test_command_on_the_page_parses(line):
    command, bound, _ = build_app().parse_args(
        shlex.split(line), exit_on_error=False, print_error=False
    )
    words = line.split()
    assert command.__name__ == (words[1] if words[0] in ("lab", "reward") else words[0])
    assert bound.arguments or words[0] == "lab"


def test_page_lists_every_exit_code():
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    classes = [getattr(errors, name) for name in errors.__all__]
    assert listed == {0, 124, 130, 143, *(error.exit_code for error in classes)}
