"""Which code is run against which tests; running it is the sandbox's business."""

from collections.abc import Collection, Sequence

import pytest

from tutelage.records import Score, ScoreStatus
from tutelage.rewards.verifiers.python_tests import (
    PythonTests,
    builtins_under_test,
    extract_code,
)

ADD = "def add(a, b):\n    return a + b\n"


class Trusting:
    """Runs both in this process: for code that a test has written itself."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[str], str]] = []

    def __call__(
        self, solution: str, tests: Sequence[str], setup: str, names: Collection[str]
    ) -> Score:
        self.seen.append((solution, list(tests), setup))
        names: dict = {}
        try:
            exec("\n".join([solution, setup, *tests]), names)
        except Exception:
            return Score(0.0)
        return Score(1.0)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ADD, ADD),
        (f"Here:\n```python\n{ADD}```\nDone.", ADD),
        (f"```\nold\n```\n```py\n{ADD}```\n```\noutput\n```", ADD),
        (f"```python\nold\n```\nBetter:\n```python\n{ADD}```", ADD),
        (f"```\n{ADD}```", ADD),
        (f"```python\n{ADD}", ADD),
        ("    return a + b\n", "    return a + b\n"),
        ("", ""),
    ],
)
def test_the_code_is_found(text, code):
    assert extract_code(text) == code


def mbpp(asked, **check):
    return asked(tests=["assert add(1, 2) == 3", "assert add(0, 0) == 0"], **check)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (ADD, 1.0),
        (f"```python\n{ADD}```", 1.0),
        (ADD.replace("+", "-"), 0.0),
        ("I cannot write code.", 0.0),
        ("", 0.0),
    ],
)
def test_all_tests_must_pass(text, value, asked):
    assert PythonTests(Trusting()).verify(mbpp(asked), text).value == value


def test_setup_runs_between_solution_and_tests(asked):
    examine = Trusting()
    prompt = asked(tests=["assert add(one, 2) == 3"], setup="one = Number(1)\r\none = int(one)")
    code = "class Number(int): pass\n" + ADD
    assert PythonTests(examine).verify(prompt, code).value == 1.0
    assert examine.seen == [(code, ["assert add(one, 2) == 3"], "one = Number(1)\none = int(one)")]


@pytest.mark.parametrize(
    "text",
    [
        "    return max(a, b, key=abs) if sqrt(4) == 2 else 0\n",
        "def largest(a, b):\n    return max(a, b, key=abs) if sqrt(4) == 2 else 0\n",
        "```python\ndef largest(a, b):\n    return max(a, b, key=abs)\n```",
    ],
)
def test_a_prefix_is_completed_by_a_body_or_by_the_whole_function(text, asked):
    prompt = asked(
        prefix='from math import sqrt\n\ndef largest(a, b):\n    """By size."""\n',
        tests=["def check(candidate):\n    assert candidate(-3, 2) == -3\n"],
        entry_point="largest",
    )
    assert PythonTests(Trusting()).verify(prompt, text).value == 1.0
    assert PythonTests(Trusting()).verify(prompt, text.replace("abs", "None")).value == 0.0


def test_a_prompt_without_tests_is_unscorable(asked):
    assert PythonTests(Trusting()).verify(asked("3"), ADD).status is ScoreStatus.UNSCORABLE


def test_what_the_examiner_cannot_tell_is_not_a_zero(asked):
    def broken(*asked: object) -> Score:
        return Score.failed(ScoreStatus.ERROR, "no sandbox")

    assert PythonTests(broken).verify(mbpp(asked), ADD).status is ScoreStatus.ERROR


def test_endless_code_is_not_even_run(asked):
    examine = Trusting()
    assert PythonTests(examine).verify(mbpp(asked), "x = 1\n" * 100_000).value == 0.0
    assert not examine.seen


def test_a_builtin_is_the_solutions_only_where_nothing_else_is_tested():
    assert builtins_under_test(["assert sum(2, 3) == 5", "assert sum(0, 0) == 0"]) == {"sum"}
    assert builtins_under_test(["assert set(f(2)) == {1}"]) == set()
    assert builtins_under_test(["assert sum(("]) == set()
