import re
import sys

import pytest
from benchmarks.peak import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells proportional sizes")

MIB = 200
HOLD = f"import time; held = bytearray(b'x') * ({MIB} << 20); time.sleep(1.5)"
START = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]) + 3)"


def test_memory_of_what_the_command_starts_counts_once(capsys):
    """200 MiB in a grandchild, and at most 60 for three interpreters."""
    assert main([sys.executable, "-c", START, HOLD]) == 3
    (peak,) = re.findall(r"([\d.]+) GiB at most", capsys.readouterr().out)
    assert MIB <= float(peak) * 1024 + 6 <= MIB + 66  # Printed to 0.01 GiB.


def test_no_command_is_said(capsys):
    assert main([]) == 2
    assert "expected a command" in capsys.readouterr().out
