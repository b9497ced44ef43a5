"""`tutelage guard`: a table of the probes, what rings in them, and what would have."""

import json

import numpy as np
import pytest

from tutelage.cli.main import main
from tutelage.config import TrainStage

GAINS = {0: (0.0, 0.0), 2: (1.0, 0.8), 4: (3.0, -0.2)}
"""Of the reward and of the signal, at each probe; the signal falls at the last one."""


@pytest.fixture
def stage(tmp_path, write_manifest):
    """The folder of a training with three probes of 64 answers, the second of which was undone."""
    config = TrainStage.model_validate(
        {
            "kind": "train",
            "model": "sft",
            "reward": {"model": "rm"},
            "prompts": "rl.jsonl",
            "probes": "held_out.jsonl",
            "probe_every": 2,
            "guard": {"signals": {"rules": {"function": "rules.py:score"}}},
            "ppo": {"steps": 12},
        }
    )
    write_manifest(tmp_path, config)
    measured = [{"step": step, "undone": step == 2} for step in GAINS]
    (tmp_path / "guard.json").write_text(json.dumps({"measurements": measured}))
    with (tmp_path / "probes.jsonl").open("w") as file:
        for step, (reward, signal) in GAINS.items():
            noise = np.random.default_rng(step).normal(size=(64, 2))
            for row in noise:
                values = {
                    "proxy": reward + row[0],
                    "held_out/rules": signal + row[1] if row[0] < 2.0 else None,
                    "length": 20.0,
                    "kl": 0.5 * step,
                }
                file.write(json.dumps({"step": step, "text": "", "values": values}) + "\n")
    return tmp_path


def found(capsys, *command: str) -> dict[int, list[str]]:
    """Monitors that ring, by step."""
    assert main(["guard", *command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    return {row["step"]: [each["monitor"] for each in row["findings"]] for row in rows}


def test_table_shows_means_and_what_rings(capsys, stage):
    assert main(["guard", str(stage)]) == 0
    shown = capsys.readouterr().out
    for expected in ("rules", "decoupling", "(undone)", "decoupling after step 4: since step 0"):
        assert expected in shown


def test_other_settings_ring_otherwise(capsys, stage):
    """With a slope of 1 the signal ought to have kept up with the reward at the second probe."""
    recorded = found(capsys, str(stage))
    assert recorded[0] == recorded[2] == []
    assert "decoupling" in recorded[4]
    off = ["--monitors.decoupling", "off", "--monitors.divergence", "off"]
    assert found(capsys, str(stage), *off)[4] == []
    budget = found(capsys, str(stage), "--monitors.kl-budget-limit", "0.9")
    assert budget[2] == ["kl_budget"]


def kept(capsys, *command: str) -> list[int]:
    """The steps of which it is said that their policy is kept."""
    assert main(["guard", *command, "--json"]) == 0
    return [row["step"] for row in json.loads(capsys.readouterr().out) if row["kept"]]


def test_the_policy_that_is_kept_is_told(capsys, stage):
    """The signal is best at step 2 and has fallen at step 4, where divergence rolls back."""
    assert main(["guard", str(stage)]) == 0
    assert "rolls back keeps the policy of step 2" in capsys.readouterr().out
    warn = ["--monitors.divergence", "warn"]
    assert kept(capsys, str(stage), *warn) == []
    assert kept(capsys, str(stage), *warn, "--monitors.decoupling", "stop") == [2]
    # An alarm that acts at step 2 keeps what was best before it.
    budget = ["--monitors.kl-budget-limit", "0.9"]
    assert kept(capsys, str(stage), *budget) == [0]


def test_fewer_prompts_say_less(capsys, stage):
    assert found(capsys, str(stage), "--prompts", "8")[4] == []
    assert main(["guard", str(stage), "--prompts", "65"]) == 2
    assert "expected 2 to 64" in capsys.readouterr().err


def test_what_is_no_such_stage_is_refused(capsys, stage, tmp_path):
    assert main(["guard", str(tmp_path / "nowhere")]) == 2
    assert "has no guard.json" in capsys.readouterr().err
    rows = (stage / "probes.jsonl").read_text().splitlines()
    (stage / "probes.jsonl").write_text("\n".join([rows[0], '{"step": 0, "text": ""}']) + "\n")
    assert main(["guard", str(stage)]) == 2
    assert "probes.jsonl:2: found no values" in capsys.readouterr().err


def test_damaged_record_is_named(capsys, stage):
    (stage / "guard.json").write_text('{"measurements": [{"st')
    assert main(["guard", str(stage)]) != 0
    assert "guard.json cannot be read" in capsys.readouterr().err


def test_what_was_never_scored_is_null(capsys, stage):
    rows = [json.loads(line) for line in (stage / "probes.jsonl").read_text().splitlines()]
    for row in rows:
        row["values"]["held_out/rules"] = None
    (stage / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["guard", str(stage), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [row["means"]["held_out/rules"] for row in shown] == [None] * len(GAINS)


def test_settings_are_checked(capsys, stage):
    assert main(["guard", str(stage), "--monitors.length-limit", "0.5"]) == 2
    assert "monitors.length_limit: found 0.5" in capsys.readouterr().err
    assert main(["guard", str(stage), "--signals.other.model", "rm"]) == 2


def test_help_answers(capsys):
    assert main(["guard", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--monitors.length-limit" in shown
    assert "--signals" not in shown
