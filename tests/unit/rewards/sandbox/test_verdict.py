"""Unit tests whose verdict the tested code tries to forge."""

import math
import re
from pathlib import Path

import pytest

from tutelage.errors import ConfigError
from tutelage.rewards.sandbox import SandboxStatus, run_tests

PAGE = Path(__file__).resolve().parents[4] / "docs" / "sandbox.md"
TESTS = ["assert square(3) == 9", "assert abs(square(0.5) - 0.25) < 1e-9"]

FORGERIES = {
    "exit at once": "import os; os._exit(0)",
    "exit when called": "def square(x):\n    import os; os._exit(0)",
    "raise SystemExit": "def square(x):\n    raise SystemExit(0)",
    "equal everything": """
class Yes(float):
    def __eq__(self, other): return True
    def __sub__(self, other): return self
    def __lt__(self, other): return True
    __abs__ = __sub__
def square(x): return Yes(1)
""",
    "return an object with answers for everything": """
class Yes:
    def __eq__(self, other): return True
    def __getattr__(self, name): return lambda *a: self
    def __lt__(self, other): return True
    def __sub__(self, other): return 0
    def __rsub__(self, other): return 0
    def __abs__(self): return 0
def square(x): return Yes()
""",
    "replace builtins": """
import builtins
builtins.AssertionError = builtins.ValueError = None
builtins.abs = abs = lambda x: -1
builtins.compile = builtins.exec = lambda *a: None
def square(x): return 1
""",
    "trace and jump over asserts": """
import sys
sys.settrace(lambda frame, event, arg: None)
def square(x): return 1
""",
    "define the helpers of the tests": """
abs = lambda x: -1
__builtins__ = {"abs": abs}
def check(*a): return True
def square(x): return 1
""",
    "print the report": """
print('[true, ""]\\n' * 10, flush=True)
def square(x):
    print('[true, ""]\\n' * 10, flush=True)
""",
    "write the report into every descriptor": """
import os
for descriptor in range(1, 64):
    try:
        os.write(descriptor, b'[true, ""]\\n' * 4)
    except OSError:
        pass
def square(x): return 1
""",
    "report at exit": """
import atexit, os
atexit.register(os.write, 1, b'[true, ""]\\n[true, ""]\\n')
def square(x): raise SystemExit
""",
    "overwrite the tests": """
import glob
for name in glob.glob("/tmp/*"):
    open(name, "w").write("")
for number in range(9):
    open(f"/tmp/test_{number}.py", "w").write("pass")
def square(x): return 1
""",
    "read the tests": """
import glob, gc, re
def square(x):
    texts = [open(name).read() for name in glob.glob("/tmp/*.py")]
    texts += [o for o in gc.get_objects() if isinstance(o, str)]
    for text in texts:
        found = re.search(r"square\\(%s\\)[^\\n]{0,9}?(9|0.25)" % x, text)
        if found: return float(found[1])
""",
    "answer through the wire's own functions": """
import wire, sys
wire.encode = lambda *a: {"reference": [0, "int"]}
sys.modules["__main__"].encode = wire.encode
def square(x): return 1
""",
    "answer before being asked": """
import json, os
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b'{"value": true}\\n' * 50)
    except OSError:
        pass
""",
    "send what is no message": """
import os, sys
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b'{"value": {"set": [[]], "x": 1}}\\n[[[\\n')
    except OSError:
        pass
def square(x): return 1
""",
    "send without end": """
import os
for descriptor in range(3, 64):
    try:
        while True: os.write(descriptor, b"[" * 65536)
    except OSError:
        pass
""",
    "answer nan": "def square(x): return float('nan')",
    "answer huge": "def square(x): return '9' * (20 << 20)",
    "answer what nests without end": """
def square(x):
    nest = []
    for _ in range(10**5): nest = [nest]
    return nest
""",
    "raise what a test might catch": "def square(x): raise AssertionError",
    "kill the examiner": """
import os, signal
for pid in (*range(2, 9999), -1, os.getppid()):
    try: os.kill(pid, signal.SIGKILL)
    except OSError: pass
def square(x): return 1
""",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_verdict_scores_nothing(sandbox, forgery):
    report = run_tests(sandbox, FORGERIES[forgery], TESTS)
    assert report.known
    assert report.fraction == 0.0, report


def test_every_forgery_is_listed():
    listed = set(re.findall(r"^\| ([^|]+?) \|", PAGE.read_text("utf-8"), flags=re.MULTILINE))
    assert not set(FORGERIES) - listed


def test_right_code_passes_and_half_right_code_passes_half(sandbox):
    assert run_tests(sandbox, "def square(x): return x * x", TESTS).fraction == 1.0
    report = run_tests(sandbox, "def square(x): return 9", TESTS)
    assert report.passed == (True, False)
    assert report.reasons == ("", "AssertionError")


def test_time_runs_out_for_the_solution_and_earlier_tests_count(make_sandbox):
    solution = "def square(x):\n    while x == 0.5: pass\n    return x * x"
    report = run_tests(make_sandbox(cpu_s=1, wall_s=120.0), solution, TESTS)
    assert report.passed == (True, False)
    assert report.status is SandboxStatus.CPU_LIMIT


def test_a_solution_that_dies_after_its_last_answer_is_reported_by_how_it_died(make_sandbox):
    """Its pipes close first: the examiner has long ended when the process does."""
    solution = (
        "import ctypes, os, time\n"
        "def square(x):\n"
        "    os.closerange(3, 1024)\n"
        "    time.sleep(0.3)\n"
        "    ctypes.string_at(0)"
    )
    report = run_tests(make_sandbox(), solution, TESTS)
    assert report.passed == (False, False)
    assert report.status is SandboxStatus.SIGNALLED


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("None", "None"),
        ("True", "True"),
        ("10**40", "10**40"),
        ("-(2**53)", "-(2**53)"),
        ("1e-300", "1e-300"),
        ("float('inf')", "float('inf')"),
        ("1+2j", "1+2j"),
        ("'\\ud800é\\0'", "'\\ud800é\\0'"),
        ("b'\\xff'", "b'\\xff'"),
        ("[1, (2, [3])]", "[1, (2, [3])]"),
        ("{(1, 2): {3}, 'a': frozenset({4})}", "{(1, 2): {3}, 'a': frozenset({4})}"),
        ("__import__('collections').Counter('aab')", "{'a': 2, 'b': 1}"),
        ("__import__('fractions').Fraction(1, 3)", "__import__('fractions').Fraction(1, 3)"),
        ("[int, dict]", "[int, dict]"),
    ],
)
def test_plain_values_arrive_as_they_are(sandbox, answer, expected):
    tests = [f"found = f()\nassert found == {expected} and type(found) is type({expected})"]
    assert run_tests(sandbox, f"def f(): return {answer}", tests).fraction == 1.0


def test_instances_modules_and_generators_of_the_solution_can_be_used(sandbox):
    solution = """
import math
class Node:
    def __init__(self, value, left=None): self.value, self.left = value, left
    def total(self): return self.value + (self.left.total() if self.left else 0)
def same(x): return x
def count(n): yield from range(n)
def fail(): raise KeyError("gone")
"""
    tests = [
        "root.left = Node(5)\nassert root.total() == 6 and root.left.value == 5",
        "assert root.left is None",
        "assert list(count(3)) == [0, 1, 2]",
        "assert math.sqrt(4) == 2.0",
        "try:\n    fail()\nexcept KeyError:\n    pass\nelse:\n    assert False",
        "assert Node(1) != Node(1)",
        "copy = same(root)\nassert copy == root and not copy != root",
    ]
    report = run_tests(sandbox, solution, tests, setup="root = Node(value=1)")
    assert report.passed == (True,) * len(tests), report.reasons


def test_names_of_python_are_the_solutions_only_when_told(sandbox):
    solution = "def sum(a, b): return 6"
    tests = ["assert sum(10, 15) == 6"]
    assert run_tests(sandbox, solution, tests).fraction == 0.0
    assert run_tests(sandbox, solution, tests, names=["sum"]).fraction == 1.0


def test_helpers_of_the_setup_win_over_the_solutions(sandbox):
    solution = "def check(x): return True\ndef f(): return 1"
    report = run_tests(
        sandbox, solution, ["assert check(f())"], setup="def check(x): return x == 2"
    )
    assert report.fraction == 0.0


def test_no_tests_are_no_verdict(sandbox):
    with pytest.raises(ConfigError, match="no tests"):
        run_tests(sandbox, "", [])


def test_failing_sandbox_says_nothing_of_the_solution(make_sandbox):
    """The solution's file alone is larger than the disk: it never runs."""
    small = make_sandbox(disk_bytes=1 << 20)
    report = run_tests(small, "#" * (2 << 20) + "\ndef square(x): return x * x", TESTS)
    assert not report.known
    assert report.status is SandboxStatus.ERROR
    assert math.isnan(report.fraction)
