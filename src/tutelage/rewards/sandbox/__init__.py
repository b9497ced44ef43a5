"""Runs Python that a model wrote, so that it can neither do harm nor forge its verdict.

    Sandbox(limits).run(program) ─> SandboxResult    run_tests(sandbox, ...) ─> TestReport
        │                                                two sandboxes, values between them
        ├── probe.py      each layer is tried before the first run; a missing one is an error
        └── execute.py ─> command.py (bubblewrap) ─> inside/start.py (rlimits, seccomp) ─> program

Layers, and the hostile programs that each one stops: docs/sandbox.md.
"""

from tutelage.rewards.sandbox.limits import Limits
from tutelage.rewards.sandbox.result import SandboxResult, SandboxStatus, SandboxUnavailable
from tutelage.rewards.sandbox.sandbox import Sandbox
from tutelage.rewards.sandbox.unit_tests import TestReport, run_tests

__all__ = [
    "Limits",
    "Sandbox",
    "SandboxResult",
    "SandboxStatus",
    "SandboxUnavailable",
    "TestReport",
    "run_tests",
]
