"""Programs that take more than they were given: time, memory, disk, processes, output."""

import time
from pathlib import Path

import pytest

from tutelage.errors import ConfigError
from tutelage.rewards.sandbox import Limits, SandboxStatus

MIB = 1 << 20


def test_endless_loop_ends_with_its_processor_time(make_sandbox):
    result = make_sandbox(cpu_s=1, wall_s=120.0).run("while True: pass")
    assert result.status is SandboxStatus.CPU_LIMIT
    assert 0.9 <= result.cpu_s < 1.5  # the kernel limits by its clock ticks


def test_endless_loop_that_ignores_every_signal_ends_too(make_sandbox):
    program = """
import signal
for number in range(1, 32):
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_IGN)
while True:
    pass
"""
    assert make_sandbox(cpu_s=1, wall_s=120.0).run(program).status is SandboxStatus.CPU_LIMIT


@pytest.mark.parametrize("ignore", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"])
def test_sleeper_ends_at_the_deadline(make_sandbox, ignore):
    sandbox = make_sandbox(wall_s=0.5)
    result = sandbox.run(f"import signal, time\n{ignore}time.sleep(1000)")
    assert result.status is SandboxStatus.WALL_LIMIT
    assert result.exit_code is None
    assert 0.5 <= result.wall_s < 1.5  # the limit and a second, on a busy machine too


@pytest.mark.parametrize(
    "program",
    [
        "data = bytearray(10 << 30)",
        "data = []\nwhile True: data.append(bytearray(1 << 20))",
        "import zlib\nbomb = zlib.compress(bytes(200 << 20), 9)\nzlib.decompress(bomb)",
        "import mmap\nmmap.mmap(-1, 10 << 30)",
    ],
    ids=["10 GB at once", "10 GB bit by bit", "zip bomb", "10 GB mapped"],
)
def test_memory_ends_at_the_limit(make_sandbox, program):
    result = make_sandbox(memory_bytes=128 * MIB).run(program)
    assert result.status is SandboxStatus.EXITED
    assert result.exit_code == 1
    assert "MemoryError" in result.stderr or "Cannot allocate memory" in result.stderr


@pytest.mark.parametrize(
    "program",
    [
        "open('big', 'wb').truncate(10 << 30)",
        "file = open('big', 'wb')\nwhile True: file.write(bytes(1 << 20))",
        "for n in range(10**6): open(str(n), 'wb').write(bytes(1 << 16))",
    ],
    ids=["10 GB file", "endless file", "endless files"],
)
def test_disk_ends_at_the_limit(sandbox, program):
    result = sandbox.run(program)
    assert result.exit_code == 1
    assert "File too large" in result.stderr or "No space left" in result.stderr


def test_output_ends_at_the_limit(make_sandbox):
    sandbox = make_sandbox(output_bytes=1000)
    result = sandbox.run("for n in range(10**9): print('x' * 80)")
    assert result.status is SandboxStatus.OUTPUT_LIMIT
    assert len(result.stdout) == 1000


def test_output_up_to_the_limit_is_kept_whole(make_sandbox):
    sandbox = make_sandbox(output_bytes=300_000)
    program = "import sys\nsys.stdout.write('o' * 200_000)\nsys.stderr.write('e' * 100_000)"
    result = sandbox.run(program)
    assert result.ok
    assert (result.stdout, result.stderr) == ("o" * 200_000, "e" * 100_000)


FORK_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


def test_fork_bomb_stays_within_its_processes_and_leaves_none(make_sandbox, processes_with):
    sandbox = make_sandbox(processes=8, wall_s=1.0, memory_bytes=200 * MIB + 12288)
    result = sandbox.run(FORK_BOMB)
    assert result.status is SandboxStatus.WALL_LIMIT
    assert not processes_with(f"RLIMIT_AS={200 * MIB + 12288}")


def test_fork_bomb_counts_no_more_than_its_processes(make_sandbox):
    program = """
import os, time
children = 0
try:
    while True:
        if not os.fork():
            time.sleep(1000)
        children += 1
except BlockingIOError:
    print(children)
"""
    assert make_sandbox(processes=8).run(program).stdout == "7\n"


def test_daemon_dies_with_the_program(make_sandbox, processes_with):
    program = """
import os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        time.sleep(1000)
    os._exit(0)
os.wait()
print("left")
"""
    sandbox = make_sandbox(processes=4, memory_bytes=200 * MIB + 8192)
    began = time.monotonic()
    result = sandbox.run(program)
    assert result.ok
    assert result.stdout == "left\n"
    assert time.monotonic() - began < 30.0
    assert not processes_with(f"RLIMIT_AS={200 * MIB + 8192}")


def test_threads_count_as_processes(make_sandbox):
    program = """
import threading, time
for n in range(100):
    threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
    print(n)
"""
    result = make_sandbox(processes=4).run(program)
    assert result.stdout.split() == ["0", "1", "2"]
    assert "can't start new thread" in result.stderr


def test_endless_recursion_is_the_programs_own_failure(make_sandbox):
    program = "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return [f()]\nf()"
    result = make_sandbox(cpu_s=1).run(program)
    assert not result.ok
    assert result.status is not SandboxStatus.ERROR


def test_crash_of_the_interpreter_is_seen_as_a_signal(sandbox):
    result = sandbox.run("import ctypes; ctypes.string_at(0)")
    assert result.status is SandboxStatus.SIGNALLED
    assert result.exit_code == -11


def test_nothing_is_left_in_shared_places(sandbox):
    places = [Path("/tmp"), Path("/dev/shm")]
    program = """
import tempfile
for place in ("/tmp", "/dev/shm", "/var/tmp"):
    try:
        open(place + "/left-by-tutelage-test", "w").write("x")
    except OSError:
        pass
"""
    assert sandbox.run(program).ok
    assert not [p for place in places for p in place.glob("left-by-tutelage-test")]


@pytest.mark.parametrize(
    ("name", "value"),
    [("cpu_s", 0), ("wall_s", float("nan")), ("memory_bytes", -1), ("cpu_s", 1.5)],
)
def test_limits_that_bound_nothing_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: value})
