"""The gold score stays out of training: nothing but the evaluation may import it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tutelage

ROOT = Path(tutelage.__file__).parent
GOLD = "tutelage.worlds.helpdesk.gold"


def imported_modules(source: str) -> set[str]:
    """All modules a source names in its imports, function bodies included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):  # importlib.import_module("...")
            names.update(str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))
    return names


def test_only_the_evaluation_imports_gold() -> None:
    importers = {
        path.relative_to(ROOT).parts[0]
        for path in ROOT.rglob("*.py")
        if GOLD in imported_modules(path.read_text("utf-8"))
    }
    assert importers <= {"evaluation"}


@pytest.mark.parametrize(
    "source",
    [
        "import tutelage.worlds.helpdesk.gold",
        "from tutelage.worlds.helpdesk import gold",
        "def f():\n    from tutelage.worlds.helpdesk.gold import calls",
        "import importlib\nimportlib.import_module('tutelage.worlds.helpdesk.gold')",
    ],
)
def test_the_check_sees_every_way_to_import_gold(source: str) -> None:
    assert GOLD in imported_modules(source)


def test_using_the_world_leaves_gold_and_torch_unloaded() -> None:
    program = (
        "import sys\n"
        "from tutelage.records import Comparison\n"
        "from tutelage.worlds.helpdesk import *\n"
        "spec = WorldSpec.nano()\n"
        "pairs = [Comparison(p, 'a', 'b') for p in prompts(spec, 'rl', 3, 0)]\n"
        "People(spec, 0).label(pairs), SimulatedJudge(spec).label(pairs)\n"
        "demonstrations(spec, 2, 0), recall_documents(spec, 2, 0), vocabulary(spec)\n"
        f"print('{GOLD}' in sys.modules, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
