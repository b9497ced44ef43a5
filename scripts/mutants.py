"""Plants known mistakes one by one and shows that a fast test catches each: `make mutants`.

    src + tests ──copy──> snapshot ─┬─ unchanged: the tests must pass
                                    └─copy──> one mistake: at least one test must fail

The mistakes are listed in `mutant_catalogue.py` and in `mutants_of_*.py` beside it;
the result is written to docs/mutants.md.
Exit code 1 when a mistake survives, when it cannot be planted because its text is not
found exactly once, or when the tests break instead of failing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mutant import Mutant
from mutant_catalogue import MUTANTS as COMMON
from mutants_of_feedback import MUTANTS as OF_FEEDBACK
from mutants_of_formulas import MUTANTS as OF_FORMULAS
from mutants_of_learners import MUTANTS as OF_LEARNERS
from mutants_of_models import MUTANTS as OF_MODELS
from mutants_of_pairs import MUTANTS as OF_PAIRS
from mutants_of_rewards import MUTANTS as OF_REWARDS
from mutants_of_rounds import MUTANTS as OF_ROUNDS

MUTANTS = (
    *COMMON,
    *OF_FEEDBACK,
    *OF_FORMULAS,
    *OF_LEARNERS,
    *OF_MODELS,
    *OF_PAIRS,
    *OF_REWARDS,
    *OF_ROUNDS,
)
ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "mutants.md"
COPIED = ("src", "tests", "scripts", "docs", "recipes", "pyproject.toml")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.egg-info")
SECONDS = 600
"""Longest time for the tests of one mutant."""
FORK = multiprocessing.get_context("forkserver")
"""Each run is a fork of a process that has imported what takes longest, and no tutelage."""
PRELOADED = [
    "torch._dynamo",
    "transformers.models.llama.modeling_llama",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.gpt_neox.modeling_gpt_neox",
    "pytest",
]

HEADER = """# Planted mistakes

`make mutants` copies the source, plants one mistake at a time and runs the fast tests named for
it. A mistake that no test notices fails the command. The lists are `scripts/mutant_catalogue.py`
and `scripts/mutants_of_*.py`.

| Mistake | File | What goes wrong | Caught by |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Verdict:
    """What the tests said about one mutant."""

    mutant: Mutant
    caught_by: str = ""
    problem: str = ""
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """One line for the terminal."""
        word = "caught  " if self.caught_by else "SURVIVED" if not self.problem else "BROKEN  "
        return (
            f"{word} {self.seconds:5.1f} s  {self.mutant.id:<34} {self.caught_by or self.problem}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the baseline and every mutant; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", metavar="ID", help="mutants to run (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    options = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if not options.only or m.id in options.only]
    unknown = set(options.only) - {m.id for m in chosen}
    if unknown:
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}")

    os.environ["OMP_NUM_THREADS"] = "1"
    FORK.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory(prefix="tutelage-mutants-") as folder:
        snapshot = copied(ROOT, Path(folder) / "snapshot")
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        code, report = run_tests(snapshot, tests)
        if code != 0:
            print(f"the tests must pass before a mistake is planted:\n{report}", file=sys.stderr)
            return 1
        print(f"the unchanged source passes; planting {len(chosen)} mistakes", flush=True)
        verdicts = []
        with ThreadPoolExecutor(options.jobs) as pool:
            for verdict in pool.map(lambda mutant: judge(mutant, snapshot), chosen):
                print(verdict.line, flush=True)
                verdicts.append(verdict)
    missed = [verdict for verdict in verdicts if not verdict.caught_by]
    print(f"{len(verdicts) - len(missed)} of {len(verdicts)} mistakes caught")
    if not options.only and not missed:
        PAGE.write_text(page(verdicts), "utf-8")
    return 1 if missed else 0


def copied(tree: Path, target: Path) -> Path:
    """Copies what the tests need to `target`."""
    target.mkdir()
    for name in COPIED:
        if (tree / name).is_dir():
            shutil.copytree(tree / name, target / name, ignore=NOT_COPIED)
        else:
            shutil.copy(tree / name, target / name)
    return target


def judge(mutant: Mutant, snapshot: Path) -> Verdict:
    """Plants one mistake in a copy of its own and runs its tests there."""
    start = time.perf_counter()
    try:
        text = planted(mutant, snapshot)
    except ValueError as error:
        return Verdict(mutant, problem=str(error))
    with tempfile.TemporaryDirectory(prefix="tutelage-mutant-") as folder:
        tree = copied(snapshot, Path(folder) / "tree")
        (tree / mutant.file).write_text(text, "utf-8")
        code, report = run_tests(tree, mutant.tests)
    seconds = time.perf_counter() - start
    failed = re.search(r"^FAILED (\S+)", report, re.MULTILINE)
    if code == 1 and failed:
        return Verdict(mutant, caught_by=failed.group(1).partition("[")[0], seconds=seconds)
    if code == 0:
        return Verdict(mutant, seconds=seconds)
    last = report.strip().splitlines()[-1] if report.strip() else "no output"
    return Verdict(mutant, problem=f"pytest ended with {code}: {last}", seconds=seconds)


def planted(mutant: Mutant, tree: Path = ROOT) -> str:
    """The file's text with the mistake in it.

    Raises:
        ValueError: the original text is not there exactly once, or Python is no Python any more.
    """
    path = tree / mutant.file
    source = path.read_text("utf-8") if path.exists() else ""
    count = source.count(mutant.old)
    if count != 1:
        raise ValueError(f"{mutant.file} holds the original text {count} times, not once")
    changed = source.replace(mutant.old, mutant.new)
    if path.suffix == ".py":
        try:
            compile(changed, mutant.file, "exec")
        except SyntaxError as error:
            raise ValueError(f"the changed file is no Python: {error}") from error
    return changed


def run_tests(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Runs pytest in a copy of the tree until the first failure: (exit code, output)."""
    report = tree / "report.txt"
    process = FORK.Process(target=in_child, args=(tree, tuple(tests), report))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return -1, f"no result after {SECONDS} s"
    return process.exitcode or 0, report.read_text("utf-8", "replace")


def in_child(tree: Path, tests: Sequence[str], report: Path) -> None:
    """Becomes pytest, with the copy of the source in front of the installed one."""
    with report.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(tree)
    source = str(tree / "src")
    sys.path.insert(0, source)
    os.environ["PYTHONPATH"] = source
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True

    import pytest

    flags = ["-x", "-q", "-rf", "--tb=line", "-p", "no:cacheprovider", "--timeout=120"]
    preloaded = ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    code = int(pytest.main([*flags, *preloaded, *tests]))
    where = str(sys.modules["tutelage"].__file__) if "tutelage" in sys.modules else ""
    if not where.startswith(source):
        print(f"the tests did not import the copy but {where or 'nothing'}")
        code = -2
    sys.stdout.flush()
    os._exit(code)


def page(verdicts: Sequence[Verdict]) -> str:
    """docs/mutants.md: one row per mistake."""
    rows = [
        f"| `{v.mutant.id}` | `{v.mutant.file}` | {v.mutant.mistake} | `{v.caught_by}` |"
        for v in verdicts
    ]
    return HEADER + "\n".join(rows) + f"\n\n{len(rows)} mistakes, all caught.\n"


if __name__ == "__main__":
    sys.exit(main())
