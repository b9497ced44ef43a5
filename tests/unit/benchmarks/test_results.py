import re
from pathlib import Path

import pytest
from benchmarks.core import render, results
from benchmarks.core.row import Row, Side
from benchmarks.core.run import judged
from benchmarks.rows import ROWS

STORED = Path(__file__).parents[3] / "benchmarks/results"

ROW = Row("X1", "a row", ">= 2x", [Side("tutelage", "a:b"), Side("peer", "a:b", {}, "peer")])


def record(status="ok", value=3.0, **changes):
    side = {"ours": True, "median": {"wall_s": 1.0}, "spread": {"wall_s": 0.04}}
    ratio = {"ours": "tutelage", "peer": "peer", "low": 2.5, "high": 3.5, "confidence": 0.97}
    return {
        "row": "X1",
        "when": "2026-01-02T03:04:05+00:00",
        "status": status,
        "machine": {"cores": 2, "processor": "CPU"},
        "load_before": 0.1,
        "load_after": 0.2,
        "repeats": 6,
        "parity": [
            {"side": "tutelage", "name": "gap", "value": 1e-6, "limit": 1e-4, "passed": True}
        ],
        "sides": {"tutelage": side, "peer": {**side, "ours": False}},
        "ratios": [{**ratio, "quantity": "wall_s", "value": value}] if status == "ok" else [],
        "limit": {"share": {"tutelage": 0.62, "peer": 0.2}},
        **changes,
    }


def test_records_are_appended_and_read_back(tmp_path):
    for value in (2.0, 3.0):
        path = results.append(tmp_path, record(value=value))
    assert [r["ratios"][0]["value"] for r in results.read(path)] == [2.0, 3.0]


def test_latest_that_counts_wins_over_a_later_one_that_does_not(tmp_path):
    assert results.latest(tmp_path, "X1") is None
    results.append(tmp_path, record(status="discarded"))
    assert results.latest(tmp_path, "X1")["status"] == "discarded"
    results.append(tmp_path, record(value=2.0))
    results.append(tmp_path, record(status="discarded"))
    assert results.latest(tmp_path, "X1")["ratios"][0]["value"] == 2.0


def test_table_shows_ratio_interval_spread_and_share_but_no_seconds():
    text = render.tables([ROW], {"X1": record()})
    assert "| X1 | tutelage against peer | wall 3.00 (2.50 to 3.50) | 4% / 4% | 62% / 20% |" in text
    assert "| X1, tutelage | gap | 1e-06 | 0.0001 |" in text


def test_table_shows_no_figure_of_a_run_that_does_not_count():
    for status in ("discarded", "parity failed", "work differs", "failed"):
        text = render.tables([ROW], {"X1": record(status=status)})
        assert status in text
        assert "3.00" not in text
    assert "not run" in render.tables([ROW], {})


def test_table_says_what_is_not_available():
    missing = {"tutelage": {"ours": True, "not_available": "no trunk"}}
    text = render.tables([ROW], {"X1": record(status="not available", sides=missing, parity=[])})
    assert "not available: no trunk" in text


def test_row_without_a_peer_shows_its_own_figure():
    alone = {"tutelage": record()["sides"]["tutelage"]}
    text = render.tables([ROW], {"X1": record(sides=alone, ratios=[])})
    assert "| X1 | tutelage, no peer | wall 1 s | 4% | 62% | >= 2x |" in text


def test_tables_replace_what_stands_between_the_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"head\n{render.BEGIN}\nold\n{render.END}\ntail\n")
    render.insert(page, "new")
    render.insert(page, "newer")
    assert page.read_text() == f"head\n{render.BEGIN}\n\nnewer\n{render.END}\ntail\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the marks"):
        render.insert(page, "new")


RECORDS = {path.stem: results.latest(STORED, path.stem) for path in STORED.glob("*.json")}


@pytest.mark.parametrize(
    # Where a side ended in the middle, there was nothing to judge.
    "name",
    sorted(name for name, record in RECORDS.items() if record["status"] != "failed"),
)
def test_a_stored_record_says_what_its_measurements_say(name):
    found = judged(ROWS[name](False), RECORDS[name])
    assert {**RECORDS[name], **found} == RECORDS[name]


def test_no_record_names_a_folder_of_the_machine():
    for path in STORED.glob("*.json"):
        assert not re.search(r'["\s]/\w+/', path.read_text()), path
