"""`tutelage feedback pairs`, as `tutelage feedback` has it."""

import json

import pytest
from cyclopts import App

from tutelage.cli.feedback_pairs import pairs_command
from tutelage.cli.main import call


@pytest.fixture
def feedback() -> App:
    app = App(name="feedback")
    app.command(pairs_command(), name="pairs")
    return app


def test_options_are_the_fields_of_the_stage(feedback, capsys):
    feedback(["pairs", "--help"], result_action="return_value")
    shown = capsys.readouterr().out
    for option in ("--samples", "--budget", "--shares.doubt", "--people", "--output"):
        assert option in shown


def test_pairs_are_built_and_dealt_out(feedback, tmp_path):
    rows = [
        {
            "id": f"{i}",
            "prompt": [{"role": "user", "content": "say it"}],
            "completions": [f"{i} one", f"{i} two"],
        }
        for i in range(10)
    ]
    source = tmp_path / "samples.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--samples", str(source), "--budget", "30", "--costs.people", "5"]
    call(feedback, ["pairs", *arguments, "--output", str(tmp_path / "asked")])
    summary = json.loads((tmp_path / "asked" / "choice.json").read_text())
    # Half of 30 units pays for three people; the judge takes the other seven pairs.
    assert (summary["people"], summary["judge"], summary["units"]) == (3, 7, 22)
    lines = (tmp_path / "asked" / "people.jsonl").read_text().splitlines()
    assert {json.loads(line)["reason"] for line in lines} == {"random"}
