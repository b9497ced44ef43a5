import platform
import sys
import time

import pytest
from benchmarks.core.machine import cpu_seconds, give_memory_back, memory_of_process


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells it on Linux")
def test_seconds_of_the_machine_include_those_of_this_process():
    before, own = cpu_seconds(), time.process_time()
    while time.process_time() - own < 0.3:
        pass
    # Ticks of 10 ms.
    assert cpu_seconds() - before > 0.25


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library of others keeps it")
def test_freed_memory_behind_what_is_still_held_goes_back():
    blocks = [bytearray(100_000) for _ in range(2_000)]
    held = memory_of_process("VmRSS")
    del blocks[:-1]
    give_memory_back()
    # 200 MB, of which the allocator may keep what shares a page with something else.
    assert memory_of_process("VmRSS") < held - 150e6
