"""Unit tests in the sandbox: the examiner of `python_tests`."""

import os
from collections.abc import Collection, Sequence

from tutelage.records import Score, ScoreStatus
from tutelage.rewards.sandbox import Sandbox, SandboxStatus, run_tests
from tutelage.rewards.verifiers.python_tests import PythonTests
from tutelage.rewards.verifiers.verifier import verdict

__all__ = ["SandboxExaminer", "sandboxed_python_tests"]


class SandboxExaminer:
    """Runs tests against a solution that can neither read them nor forge their verdict."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Args: where both sides run."""
        self.sandbox = sandbox

    def __call__(
        self, solution: str, tests: Sequence[str], setup: str, names: Collection[str]
    ) -> Score:
        """1 where every test passes; a failed score where the sandbox or the clock decided."""
        report = run_tests(self.sandbox, solution, tests, setup, names)
        reason = next(filter(None, report.reasons), "")
        if not report.known:
            return Score.failed(ScoreStatus.ERROR, f"the sandbox failed: {reason}")
        if report.status is SandboxStatus.WALL_LIMIT:
            # Processor time convicts a busy program; the clock also runs while the machine is busy.
            return Score.failed(ScoreStatus.TIMEOUT, "the tests ran into the sandbox's wall_s")
        return verdict(all(report.passed), reason)


def sandboxed_python_tests() -> PythonTests:
    """The verifier `python_tests`: as many solutions at once as there are processors.

    Raises:
        SandboxUnavailable: a layer of the sandbox is missing here.
    """
    return PythonTests(SandboxExaminer(Sandbox()), at_once=os.cpu_count() or 1)
