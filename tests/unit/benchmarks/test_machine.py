import sys
import time

import pytest
from benchmarks.core.machine import cpu_seconds


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells it on Linux")
def test_seconds_of_the_machine_include_those_of_this_process():
    before, own = cpu_seconds(), time.process_time()
    while time.process_time() - own < 0.3:
        pass
    # Ticks of 10 ms.
    assert cpu_seconds() - before > 0.25
