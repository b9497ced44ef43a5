"""The verifier of code, in the sandbox as it is used."""

import pytest

from tutelage.records import ScoreStatus
from tutelage.rewards.sandbox import Limits, Sandbox, SandboxUnavailable
from tutelage.rewards.verifiers.python_tests import PythonTests
from tutelage.rewards.verifiers.sandboxed_tests import SandboxExaminer


@pytest.fixture(scope="module")
def verifier() -> PythonTests:
    try:
        return PythonTests(SandboxExaminer(Sandbox(Limits(cpu_s=1, wall_s=60.0))))
    except SandboxUnavailable as missing:
        pytest.skip(str(missing))


ADD = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (ADD, 1.0),
        (ADD.replace("+", "-"), 0.0),
        ("import sys\nsys.exit(0)", 0.0),
        ("while True: pass", 0.0),
        ("class Yes:\n    def __eq__(self, other): return True\ndef add(a, b): return Yes()", 0.0),
    ],
    ids=["right", "wrong", "exits", "endless", "equal to all"],
)
def test_only_code_that_computes_the_results_is_right(verifier, code, value, asked):
    score = verifier.verify(asked(tests=["assert add(1, 2) == 3", "assert add(4, 4) == 8"]), code)
    assert (score.status, score.value) == (ScoreStatus.OK, value)


def test_a_function_may_have_the_name_of_a_builtin(verifier, asked):
    prompt = asked(tests=["assert sum(1, 2) == 3"])
    assert verifier.verify(prompt, ADD.replace("add", "sum")).value == 1.0


def test_a_function_is_completed_and_checked(verifier, asked):
    prompt = asked(
        prefix="def twice(x):\n",
        tests=["def check(candidate):\n    assert candidate(3) == 6\n"],
        entry_point="twice",
    )
    assert verifier.verify(prompt, "    return 2 * x\n").value == 1.0
    assert verifier.verify(prompt, "    return 3 * x\n").value == 0.0
