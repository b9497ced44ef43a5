"""One sandbox for all tests, where this machine can make one."""

import os
import textwrap
from pathlib import Path

import pytest

from tutelage.rewards.sandbox import Limits, Sandbox, SandboxUnavailable

MIB = 1 << 20

TRY = """
try:
    done = attack()
except BaseException as error:
    print("refused:", type(error).__name__, error)
else:
    print("reached:" if done else "refused:", repr(done)[:200])
"""


@pytest.fixture(scope="session")
def make_sandbox():
    def make(**limits):
        try:
            return Sandbox(Limits(**limits))
        except SandboxUnavailable as error:
            pytest.skip(str(error))

    return make


@pytest.fixture(scope="session")
def sandbox(make_sandbox):
    return make_sandbox(cpu_s=2, wall_s=60.0, memory_bytes=256 * MIB, disk_bytes=4 * MIB)


@pytest.fixture
def written():
    """The program that tries an attack and says how it went."""

    def write(body):
        return "def attack():\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ") + TRY

    return write


@pytest.fixture
def processes_with():
    """Process ids on this machine whose command line contains a text."""

    def find(text):
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if text in (entry / "cmdline").read_text("utf-8", "replace"):
                    found.append(int(entry.name))
            except OSError:  # it has ended meanwhile
                continue
        return [pid for pid in found if pid != os.getpid()]

    return find
