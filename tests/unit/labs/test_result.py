import json

import numpy as np
import pytest

from tutelage.labs.plots import panels, running_mean
from tutelage.labs.result import LabResult, exercise_table, write_result


def test_figures_and_summary_are_written_and_replaced(tmp_path):
    figure, (axes,) = panels(1, 1, width=2, height=2)
    axes.plot([0, 1])
    result = LabResult({"lab": "x", "bad": float("nan")}, [], {"line": figure})
    for _ in range(2):
        files = write_result(result, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["line.png", "summary.json"]
    assert files[0].read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert json.loads(files[1].read_text()) == {"lab": "x", "bad": None}


def test_running_mean_by_hand():
    assert running_mean(np.array([1.0, 3.0, 5.0, 10.0]), 2).tolist() == [1, 2, 4, 7.5]
    rows = running_mean(np.array([[2.0, 4.0], [0.0, 1.0]]), 5)
    assert rows.tolist() == [[2, 3], [0, 0.5]]


def test_table_shows_brackets_as_they_are():
    table = exercise_table("t", ["a", "b"], [["[red]x", "1"]])
    assert [str(cell) for cell in table.columns[0].cells] == ["[red]x"]


@pytest.mark.parametrize("rows", [1, 2])
def test_panels_come_in_reading_order(rows):
    _, axes = panels(rows, 2, width=4, height=2)
    assert len(axes) == 2 * rows
