"""What a program gets, and that many at once get what each gets alone."""

import random

import pytest

from tutelage.errors import ConfigError
from tutelage.rewards.sandbox import SandboxStatus


def test_program_reads_input_and_files_and_its_output_comes_back(sandbox):
    program = """
import sys
print(input(), open("data.txt").read(), open("folder/deep.txt").read())
print(sys.argv, __name__, __file__, file=sys.stderr)
sys.exit(7)
"""
    result = sandbox.run(program, "first\nsecond\n", {"data.txt": "é", "folder/deep.txt": "deep"})
    assert (result.status, result.exit_code) == (SandboxStatus.EXITED, 7)
    assert result.stdout == "first é deep\n"
    assert result.stderr == "['program.py'] __main__ program.py\n"


@pytest.mark.parametrize(
    "program",
    [
        "import asyncio\nprint(asyncio.run(asyncio.sleep(0, 'ok')))",
        "import tempfile\nwith tempfile.TemporaryFile() as f: f.write(b'x'); print('ok')",
        "import collections, heapq, re, math, itertools, random, datetime, decimal; print('ok')",
        "import sqlite3; sqlite3.connect(':memory:'); print('ok')",
        "import dataclasses, pickle\n@dataclasses.dataclass\nclass A: x: int\n"
        "print('ok' if pickle.loads(pickle.dumps(A(1))) == A(1) else '')",
        "import unittest\nclass T(unittest.TestCase):\n  def test(self): print('ok')\n"
        "unittest.main(exit=False)",
    ],
    ids=["asyncio", "tempfile", "standard library", "sqlite", "pickle", "unittest"],
)
def test_ordinary_programs_work(sandbox, program):
    result = sandbox.run(program)
    assert (result.stdout.strip(), result.exit_code) == ("ok", 0), result


def test_input_that_is_not_read_does_no_harm(sandbox):
    assert sandbox.run("print('done')", "x" * (4 << 20)).stdout == "done\n"


def test_long_input_is_read_whole(sandbox):
    program = "import sys; print(len(sys.stdin.read()))"
    assert sandbox.run(program, "x" * (4 << 20)).stdout == f"{4 << 20}\n"


def test_program_that_is_no_python_fails_as_python_says(sandbox):
    result = sandbox.run("def f(:")
    assert result.exit_code == 1
    assert "SyntaxError" in result.stderr


def test_order_of_a_set_is_the_same_in_each_run(sandbox):
    program = "print(list({'a', 'b', 'c', 'd', 'e', 'f'}))"
    assert len({sandbox.run(program).stdout for _ in range(3)}) == 1


def test_two_runs_share_nothing(sandbox):
    assert sandbox.run("open('note', 'w').write('x')").ok
    assert "FileNotFoundError" in sandbox.run("open('note')").stderr


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../../b", "", "nul\0"])
def test_files_stay_below_the_folder(sandbox, name):
    with pytest.raises(ConfigError, match="not a relative path"):
        sandbox.run("", files={name: ""})


def test_concurrency_is_at_least_one(sandbox):
    with pytest.raises(ConfigError, match="concurrency"):
        sandbox.run_many([""], concurrency=0)


def mixed_programs(count):
    """Programs of several kinds, each with an answer of its own."""
    draw = random.Random(0)
    kinds = [
        "print({n} * {n})",
        "import sys; sys.exit({n} % 7)",
        "raise ValueError({n})",
        "open('mine', 'w').write('{n}'); print(open('mine').read())",
        "print(sorted({{hash(str(i)) % 97 for i in range({n})}}))",
        "x = bytearray(10 << 30)",
        "import os; os._exit({n} % 5)",
        "import socket; socket.socket()",
        "print('{n}' * 1000)",
        "import ctypes; ctypes.string_at({n} % 3)",
    ]
    return [draw.choice(kinds).format(n=n) for n in range(count)]


def verdicts(results):
    return [(r.status, r.exit_code, r.stdout, r.stderr) for r in results]


def test_side_by_side_gives_what_one_by_one_gives(sandbox):
    programs = mixed_programs(48)
    alone = [sandbox.run(program) for program in programs]
    assert verdicts(sandbox.run_many(programs, concurrency=16)) == verdicts(alone)


@pytest.mark.soak
def test_a_thousand_programs_side_by_side_give_what_one_by_one_gives(sandbox, capsys):
    programs = mixed_programs(1000)
    alone = [sandbox.run(program) for program in programs]
    together = sandbox.run_many(programs, concurrency=16)
    assert verdicts(together) == verdicts(alone)
    waits = sorted(result.wall_s for result in together)
    with capsys.disabled():
        print(
            f"\nwall seconds of a program, 16 at a time: p50 {waits[500]:.3f}, p99 {waits[990]:.3f}"
        )
