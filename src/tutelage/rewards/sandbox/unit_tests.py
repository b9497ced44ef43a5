"""Unit tests against code a model wrote, with a verdict the code cannot forge.

        sandbox 1: the solution                       sandbox 2: the examiner
    model's code + inside/solution.py  <──pipes──>  the tests + inside/examiner.py ──> verdict
          knows arguments                        knows expected values, compares

The two never share a process or a file. The solution is asked for values and may answer what it
likes: it cannot read tests, patch `assert`, end the examiner or write into its report. Ending early
is no answer, and a test without its answer has failed.
"""

import contextlib
import json
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from tutelage.errors import ConfigError
from tutelage.rewards.sandbox.command import inside
from tutelage.rewards.sandbox.execute import Job
from tutelage.rewards.sandbox.result import SandboxResult, SandboxStatus
from tutelage.rewards.sandbox.sandbox import Sandbox

__all__ = ["TestReport", "run_tests"]

_ENDING_S = 1.0
"""How long a solution that closed its pipes has to end by itself, so that how it ended is known."""


@dataclass(frozen=True, slots=True)
class TestReport:
    """What became of each test."""

    passed: tuple[bool, ...]
    reasons: tuple[str, ...]
    """Why a test failed; empty for those that passed."""
    status: SandboxStatus
    """How the solution's run ended. `ERROR`: the sandbox failed, the solution is not judged."""

    __test__ = False  # pytest takes classes that begin with Test for tests

    @property
    def known(self) -> bool:
        """Whether the numbers speak of the solution; if not, the sample must be masked."""
        return self.status is not SandboxStatus.ERROR

    @property
    def fraction(self) -> float:
        """Share of tests that passed; NaN when nothing is known."""
        return sum(self.passed) / len(self.passed) if self.known else float("nan")


def run_tests(
    sandbox: Sandbox,
    solution: str,
    tests: Sequence[str],
    setup: str = "",
    names: Collection[str] = (),
) -> TestReport:
    """Runs each test against the solution.

    Names in a test that neither it nor Python knows are the solution's. Values pass as plain data:
    a subclass arrives as its builtin, and what is no data, such as an instance or a generator, as
    something that can be called, asked and iterated but equals nothing else.

    Args:
        sandbox: Where both sides run, each with its limits.
        solution: The model's code.
        tests: Python sources; one passes when it raises nothing.
        setup: Source run before each test, for instance helpers that the tests call. It wins over
            a function of the same name in the solution.
        names: Names that are the solution's even where Python has a builtin so called.
    """
    if not tests:
        raise ConfigError("there are no tests to run: a verdict needs at least one")
    with contextlib.ExitStack() as stack:
        answers, answer = os.pipe()
        questions, question = os.pipe()
        stop, keep_going = os.pipe()
        stack.callback(os.close, stop)
        wire = inside("wire.py")
        solving = Job(
            {
                "wire.py": wire,
                "solution_code.py": solution,
                "program.py": inside("solution.py"),
            },
            ["program.py", str(questions), str(answer)],
            shared=(questions, answer),
            stop=stop,
        )
        examining = Job(
            {
                "wire.py": wire,
                "setup_code.py": setup,
                "program.py": inside("examiner.py"),
                **{f"test_{number}.py": test for number, test in enumerate(tests)},
            },
            ["program.py", str(answers), str(question), str(len(tests)), *names],
            shared=(answers, question),
        )
        with ThreadPoolExecutor(1, "solution") as thread:
            solved = thread.submit(sandbox.execute, solving)
            try:
                examined = sandbox.execute(examining)
                if "the solution ended" in examined.stdout:
                    wait([solved], _ENDING_S)
            finally:
                os.close(keep_going)
            return _report(solved.result(), examined, len(tests))


def _report(solved: SandboxResult, examined: SandboxResult, count: int) -> TestReport:
    """Joins both ends; a test without a line in the report has failed."""
    lines = examined.stdout.splitlines(keepends=True)
    verdicts = [json.loads(line) for line in lines if line.endswith("\n")]
    finished = solved.status in (SandboxStatus.STOPPED, SandboxStatus.EXITED)
    if SandboxStatus.ERROR in (solved.status, examined.status):
        reason = next(r.stderr for r in (solved, examined) if r.status is SandboxStatus.ERROR)
        return TestReport((False,) * count, (reason,) * count, SandboxStatus.ERROR)
    status = examined.status if finished else solved.status
    missing = count - len(verdicts)
    return TestReport(
        tuple(passed for passed, _ in verdicts) + (False,) * missing,
        tuple(_why(reason, solved.status, finished) for _, reason in verdicts)
        + (f"no result: {status}",) * missing,
        status,
    )


def _why(reason: str, status: SandboxStatus, finished: bool) -> str:
    return reason if finished or not reason else f"{reason} ({status})"
