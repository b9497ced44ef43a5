"""Rules of the house that no linter knows: what CONTRIBUTING.md promises about this tree."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tutelage.cli.main import build_app
from tutelage.cli.run import read_recipe
from tutelage.config.reference import configuration_reference

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "tutelage"
MODULES = sorted(SOURCE.rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("recipes/**/*.md")])
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".cff", ".html", ".jinja"}
TEXT_NAMES = {"Makefile", "LICENSE", "NOTICE", ".gitignore", "run"}
TREES = ("src", "tests", "docs", "recipes", "scripts", "examples", "benchmarks", ".ci", ".github")

TORCH_FREE = (
    "config",
    "errors",
    "records",
    "environment",
    "feedback",
    "worlds",
    "judging",
    "data",
    "tracking",
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), relative(path))


def project_files() -> Iterator[Path]:
    """Every text file that belongs to the project, caches and build products left out."""
    for place in (ROOT, *(ROOT / tree for tree in TREES)):
        files = place.iterdir() if place == ROOT else place.rglob("*")
        for path in sorted(files):
            generated = any(
                part == "__pycache__" or part.endswith(".egg-info") for part in path.parts
            )
            text = path.suffix in TEXT_SUFFIXES or path.name in TEXT_NAMES
            if path.is_file() and text and not generated:
                yield path


def bound_names(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Names that a module itself binds at its top level: (functions and classes, others)."""
    callables: set[str] = set()
    others: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            callables.add(node.name)
        elif isinstance(node, ast.Assign):
            others |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            others.add(node.target.id)
    return callables, others


def imports(tree: ast.Module, inside: str) -> Iterator[tuple[str, str]]:
    """(module, name) of each `from tutelage... import name`, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(inside):
            yield from ((node.module or "", alias.name) for alias in node.names)


@cache
def imported_elsewhere() -> dict[str, set[str]]:
    """Names that some module of the project imports, by the module they come from."""
    wanted: dict[str, set[str]] = {}
    for path in MODULES:
        for module, name in imports(parse(path), "tutelage"):
            wanted.setdefault(module, set()).add(name)
    return wanted


def declared(tree: ast.Module) -> list[str] | None:
    """The value of `__all__`, or nothing when the module has none."""
    for node in tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if value and any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            return list(ast.literal_eval(value))
    return None


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_all_is_exact(path):
    """It lists the public functions and classes, and whatever else other modules import."""
    if path.name == "__main__.py":
        return
    tree = parse(path)
    names = declared(tree)
    assert names is not None, f"{relative(path)} has no __all__"
    assert len(names) == len(set(names)), f"{relative(path)} repeats a name in __all__"
    callables, others = bound_names(tree)
    wanted = {name for name in callables if not name.startswith("_")}
    submodules = {entry.stem for entry in path.parent.iterdir()}
    wanted |= imported_elsewhere().get(dotted(path), set()) - submodules
    if path.name == "__init__.py":
        wanted |= {name for _, name in imports(tree, dotted(path))}
        package = importlib.import_module(dotted(path))
        strangers = {name for name in names if not hasattr(package, name)}
    else:
        strangers = set(names) - callables - others
    assert not strangers, f"{relative(path)} promises {sorted(strangers)} but has no such names"
    missing = wanted - set(names)
    assert not missing, f"{relative(path)}: {sorted(missing)} are public but not in __all__"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_says_what_it_is_for(path):
    assert path.name == "__main__.py" or ast.get_docstring(parse(path)), relative(path)


def test_no_file_is_longer_than_500_lines():
    files = [*MODULES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("scripts/*.py")]
    lengths = {relative(path): len(path.read_text("utf-8").splitlines()) for path in files}
    assert not {name: lines for name, lines in lengths.items() if lines > 500}


def test_no_function_is_longer_than_80_lines():
    long = [
        f"{relative(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > 80
    ]
    assert not long


def test_no_module_is_called_utils():
    vague = {"utils", "util", "helpers", "common", "misc"}
    assert not [
        relative(path)
        for path in MODULES
        if vague & set(path.relative_to(SOURCE).with_suffix("").parts)
    ]


def algorithms() -> list[tuple[Path, ast.FunctionDef]]:
    return [
        (path, node)
        for path in sorted((SOURCE / "algorithms").glob("*.py"))
        for node in parse(path).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


def test_there_are_algorithms():
    assert len(algorithms()) >= 10


@pytest.mark.parametrize(("path", "function"), algorithms(), ids=lambda x: getattr(x, "name", ""))
def test_algorithm_names_its_source(path, function):
    docstring = ast.get_docstring(function) or ""
    named = r"arXiv:\d{4}\.\d{4,5}|et al\.|\b(19|20)\d\d\b|[Ii]dentity|[Dd]efinition"
    assert re.search(named, docstring), f"{relative(path)}: {function.name} names no source"


@pytest.mark.parametrize(("path", "function"), algorithms(), ids=lambda x: getattr(x, "name", ""))
def test_algorithm_has_a_row_in_the_table(path, function):
    page = (ROOT / "docs" / "algorithms.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert any(f"`{function.name}" in row for row in rows), (
        f"docs/algorithms.md has no row for {function.name} of {relative(path)}"
    )


def test_there_are_recipes():
    assert {"quickstart.yaml", "sentiment.yaml", "hh.yaml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=relative)
def test_recipe_loads(path):
    from tutelage.config import load_recipe

    load_recipe(path)


@pytest.mark.parametrize(
    "statement",
    [
        r"^\s*(import|from) (pickle|cPickle|dill|cloudpickle|joblib|shelve|marshal)\b",
        r"\btorch\.load\(",
        r"trust_remote_code\s*=\s*True",
        r"(?<![\w.])(eval|exec)\(",
        r"shell\s*=\s*True",
        r"\byaml\.load\(",
        r"weights_only\s*=\s*False",
        r"type: ignore(?!\[)",
        r"^\s*except\s*:",
        # A clock that a person or a server can set must not measure durations.
        r"\btime\.time(_ns)?\(|from time import .*\btime\b",
    ],
)
def test_source_does_not_say(statement):
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in MODULES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if re.search(statement, line)
    ]
    assert not found


def test_the_calendar_only_dates_what_is_written_down():
    """Durations come from clocks that never jump; the time of day is for people to read.

    What several processes share over days, sessions and leases, knows no other clock.
    """
    users = {
        relative(path) for path in MODULES if re.search(r"datetime\.(now|utcnow)", path.read_text())
    }
    written = {"src/tutelage/tracking/lock.py", "src/tutelage/tracking/stage.py"}
    assert users == {*written, "src/tutelage/feedback/server/clock.py"}


def test_data_records_and_judges_import_without_torch():
    names = [
        dotted(path)
        for path in MODULES
        if path.relative_to(SOURCE).parts[0].removesuffix(".py") in TORCH_FREE
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers', 'vllm'} & sys.modules.keys()\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [t for t in targets if not re.match(r"[a-z]+:|#", t)]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_to_files(page):
    missing = [t for t in links(page) if not (page.parent / t.partition("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_named_files_exist(page):
    trees = "|".join(re.escape(tree) for tree in TREES)
    named = re.findall(rf"`((?:{trees})/[\w./-]*\w)(?:::\w+)?`", page.read_text("utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


def test_reliability_page_names_tests_that_exist():
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    named = [re.search(r"`(test_\w+)` \|$", row) for row in rows if not row.endswith("Test |")]
    assert len(named) > 25
    assert all(named), "each row ends with its test"
    tests = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert not [found[1] for found in named if found and found[1] not in tests]


def shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip().removeprefix("$ ") for line in joined.splitlines()]


def make_targets() -> set[str]:
    return set(
        re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    )


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_make_commands_in_pages_exist(page):
    wanted = [
        word
        for line in shell_lines(page)
        if line.startswith("make ")
        for word in shlex.split(line.partition("#")[0])[1:]
        if "=" not in word
    ]
    assert set(wanted) <= make_targets()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_tutelage_commands_in_pages_parse(page):
    app = build_app()
    for line in shell_lines(page):
        if line.startswith("tutelage "):
            words = shlex.split(line, comments=True)[1:]
            command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
            if command.__name__ in ("run", "config") and "recipe" in bound.arguments:
                recipe = ROOT / bound.arguments["recipe"]
                read_recipe(recipe, list(bound.arguments.get("overrides", ())))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_python_in_pages_imports_what_exists(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    for block in blocks:
        for module, name in imports(ast.parse(block), "tutelage"):
            assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"


def test_configuration_page_is_what_the_models_say():
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert page == configuration_reference(), "the page is stale: make docs"


def test_readme_shows_the_two_commands():
    assert {"make quickstart", "make test"} <= {
        line.partition("#")[0].strip() for line in shell_lines(ROOT / "README.md")
    }


@pytest.mark.parametrize("path", list(project_files()), ids=relative)
def test_project_speaks_of_itself_alone(path):
    # Joined at run time so that this file passes its own rule.
    foreign = [
        "/work" + "/",
        "/opt" + "/",
        "shared" + "/design",
        "../" + "shared",
        "this " + "session",
    ]
    text = path.read_text("utf-8")
    assert not [word for word in foreign if word in text]


def test_constraints_are_versions_without_addresses():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    assert not [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert not [line for line in pins if line.startswith("torch==")]


def test_every_package_is_in_a_layer_and_in_the_picture():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    known = {name.strip("() ") for layer in layers for name in layer.split("|")}
    present = {
        path.stem
        for path in SOURCE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"__init__", "__main__"}
    picture = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert present <= known
    assert not [name for name in present if not re.search(rf"\b{name}\b", picture)]


def tree_paths(page: Path, heading: str = "## Tree") -> list[str]:
    """The paths of the first code block under a heading, built from its indentation."""
    block = page.read_text("utf-8").partition(heading)[2].split("```")[1]
    paths: list[str] = []
    folders: list[tuple[int, str]] = []
    for line in block.strip("\n").splitlines():
        depth = len(line) - len(line.lstrip())
        name = line.split()[0]
        folders = [(d, folder) for d, folder in folders if d < depth]
        paths.append("".join(folder for _, folder in folders) + name)
        if name.endswith("/"):
            folders.append((depth, name))
    return paths


PACKAGES = {relative(path.parent) + "/" for path in SOURCE.glob("*/__init__.py")}


def test_tree_shows_what_is_there():
    paths = tree_paths(ROOT / "docs" / "architecture.md")
    assert len(paths) > 30
    assert not [path for path in paths if not (ROOT / path).exists()]
    shown = {path for path in paths if path.count("/") > 2}
    assert not [p for p in PACKAGES if not any(path.startswith(p) for path in shown)]


def test_the_readme_shows_every_package():
    paths = tree_paths(ROOT / "README.md", "## What is where")
    assert not [path for path in paths if not (ROOT / path).exists()]
    assert set(paths) >= PACKAGES
