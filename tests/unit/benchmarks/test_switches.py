import re
import sys

import pytest
from benchmarks.switches import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="its pages, its count of memory")


@pytest.mark.parametrize(("switch", "row"), [("pages", "C4"), ("native", "C1t")])
def test_a_row_has_a_line_with_both_clocks_and_memory(switch, row, capsys):
    assert main([switch, row, "--quick", "--rounds", "2"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    number = r"(\d+\.\d{3})"
    interval = rf"{number} \({number} to {number}\)"
    found = re.fullmatch(rf"{row} +wall_s {interval}, cpu_s {interval}, memory {number}", line)
    assert found is not None, line
    wall, low, high, *_, memory = map(float, found.groups())
    assert low <= wall <= high
    # The same work in both processes; their interpreters alone are most of it.
    assert 0.5 < memory < 2


def test_an_unknown_row_is_said(capsys):
    assert main(["pages", "C99"]) == 2
    assert "no row is called C99" in capsys.readouterr().out
