"""The guard's part of the report: values from a hand-written record, escaped like all else."""

import json
import shutil

import pytest

from tutelage.tracking import plots
from tutelage.tracking.example_run import write_example_run
from tutelage.tracking.reader import read_run
from tutelage.tracking.report import render_report
from tutelage.tracking.report_guard import guard_sections

HACKED = "<script>so sorry</script>"


def measurement(step: int, proxy: float, held_out: float) -> dict:
    means = {"proxy": proxy, "held_out/second": held_out, "length": 20.0}
    return {"step": step, "undone": False, "means": means, "errors": dict.fromkeys(means, 0.1)}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return write_example_run(tmp_path_factory.mktemp("runs") / "demo", steps=4)


@pytest.fixture
def folder(example, tmp_path):
    """A run whose last learner had a guard."""
    place = shutil.copytree(example, tmp_path / "demo")
    stage = [each for each in read_run(place).stages if each.trains_a_policy][-1]
    alarm = {
        "step": 4,
        "action": "roll_back",
        "monitor": "divergence",
        "column": "held_out/second",
        "since": 0,
        "p": 1e-9,
        "level": 1e-3,
        "sentence": "since step 0 the reward went up",
    }
    sample = {
        "prompt": [{"role": "user", "content": "what is my bill?"}],
        "before": "your bill is $47.",
        "now": HACKED,
        "values": {"proxy": [0.1, 2.5], "held_out/second": [1.0, None]},
    }
    record = {
        "measurements": [measurement(0, 0.0, 1.0), measurement(4, 2.0, 0.5)],
        "units": {"proxy": 4.0, "held_out/second": 0.25},
        "alarms": [alarm, alarm | {"step": 8, "p": 0.0}],
        "samples": [{"step": 4, "monitor": "divergence", "samples": [sample]}],
        "best_step": 0,
        "roll_backs": 1,
    }
    (stage.folder / "guard.json").write_text(json.dumps(record))
    return place


def test_section_shows_alarms_and_the_answers_behind_them(folder):
    (section,) = guard_sections(read_run(folder))
    assert section["outcome"] == "2 probes, the best by held-out signals after step 0, 1 roll-backs"
    (alarm,) = section["alarms"]
    assert (alarm["action"], alarm["p"], alarm["level"]) == ("roll back", "1.0e-09", "1.0e-03")
    assert alarm["steps"] == "4, 8"
    (sample,) = section["samples"]
    assert sample["values"] == [("proxy", "0.10 to 2.50"), ("second", "1.00 to none")]
    assert [panel.title for panel in section["panels"]] == [
        "Reward and held-out signals",
        "Length of probes (tokens)",
    ]


def test_gains_are_in_standard_deviations(folder, monkeypatch):
    """2 of 4 and -0.5 of 0.25, beside each other."""
    drawn = {}
    monkeypatch.setattr(plots, "curves", lambda name, series: drawn.setdefault(name, series))
    guard_sections(read_run(folder))
    both = next(series for series in drawn.values() if len(series) == 2)
    assert [list(one.y) for one in both] == [[0.0, 0.5], [0.0, -2.0]]
    assert list(both[0].high) == pytest.approx([0.05, 0.55])


def test_page_escapes_what_the_policy_wrote(folder):
    html = render_report(folder).read_text("utf-8")
    assert 'id="guard"' in html
    assert 'href="#guard"' in html
    assert HACKED not in html
    assert "&lt;script&gt;so sorry" in html


def test_runs_without_a_guard_have_no_such_section(example):
    assert guard_sections(read_run(example)) == []
