"""Python code by unit tests, as in MBPP (arXiv:2108.07732) and HumanEval (arXiv:2107.03374).

    answer ──extract──> solution ─┐
    prompt: setup, tests ─────────┴─ examine, in a sandbox ──> verdict

    MBPP        the solution, then `setup` and the `tests`
    HumanEval   `prefix` and the solution, which may be the body alone or the whole function; then
                the tests and `check(entry_point)`

Nothing is run here: the examiner given at construction does it. The verdict is all or nothing,
since a function that fails one test in three is wrong.
"""

import ast
import builtins
from collections.abc import Callable, Collection, Sequence

from tutelage.records import Prompt, Score
from tutelage.rewards.verifiers.fences import fenced_blocks
from tutelage.rewards.verifiers.verifier import unscorable, verdict

__all__ = ["Examine", "PythonTests", "builtins_under_test", "extract_code"]

Examine = Callable[[str, Sequence[str], str, Collection[str]], Score]
"""(solution, tests, setup before the tests, builtins that the solution redefines) -> 1 where every
test passes, 0 where one does not, a failed score where the examiner cannot tell. It runs untrusted
code and must confine it."""

_LONGEST = 100_000
"""Characters of a solution; nobody asks for a longer one."""


class PythonTests:
    """Right when the code passes the prompt's tests."""

    def __init__(self, examine: Examine, *, at_once: int = 1) -> None:
        """Args: what runs the tests, and how many solutions at the same time."""
        self.examine = examine
        self.at_once = at_once

    def verify(self, prompt: Prompt, text: str) -> Score:
        """1 or 0; unscorable where the prompt has no tests."""
        tests = prompt.check.get("tests")
        if not tests:
            return unscorable(prompt, "tests")
        code = extract_code(text)
        if len(code) > _LONGEST:
            return verdict(False, f"{len(code)} characters of code")
        entry_point = prompt.check.get("entry_point")
        if entry_point is None:
            # Lines of some data sets end as on other systems.
            setup = str(prompt.check.get("setup") or "").replace("\r\n", "\n")
            return self.examine(code, tests, setup, builtins_under_test(tests))
        solution = _completed(str(prompt.check.get("prefix", "")), code, entry_point)
        return self.examine(solution, [f"check({entry_point})"], "\n".join(tests), {entry_point})


def builtins_under_test(tests: Sequence[str]) -> set[str]:
    """Builtins that are what is tested, as in `assert sum(2, 3) == 5`.

    Only where the tests call nothing else: in `assert set(f(x)) == {1}` the solution must not
    decide what `set` is.
    """
    try:
        nodes = [node for test in tests for node in ast.walk(ast.parse(test))]
    except SyntaxError:
        return set()
    called = {
        node.func.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return called if called <= vars(builtins).keys() else set()


def extract_code(text: str) -> str:
    """The code of an answer: its last fenced block of Python, or all of it where there is none.

    A block in no language counts as Python if the answer has no better one.
    """
    blocks = fenced_blocks(text)
    python = [each.code for each in blocks if each.language in ("python", "py", "python3")]
    unnamed = [each.code for each in blocks if not each.language]
    return (python or unnamed or [text])[-1]


def _completed(prefix: str, code: str, entry_point: str) -> str:
    """The whole program of an answer that may continue the prefix or say it again."""
    if _defines(code, entry_point):
        return f"{prefix}\n{code}"  # the second definition is the one that stays
    return prefix + code


def _defines(code: str, name: str) -> bool:
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(each, ast.FunctionDef) and each.name == name for each in body)
