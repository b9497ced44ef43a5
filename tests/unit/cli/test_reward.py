"""`tutelage reward evaluate` and `score`: tables, JSON, and the record that a gate reads."""

import json

import pytest

from tutelage.cli.main import main
from tutelage.models import RewardModel


@pytest.fixture
def folder(tmp_path, tiny_scorer, tiny_tokenizer) -> str:
    RewardModel(tiny_scorer, tiny_tokenizer, max_length=64).save(tmp_path / "rm")
    return str(tmp_path / "rm")


@pytest.fixture
def pairs(tmp_path) -> str:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"id": i, "prompt": f"q {i}", "chosen": "yes " * (i % 3 + 1), "rejected": "no", "subset": s}
        for i, s in enumerate(["hep-go", "donotanswer"] * 12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_tables_show_the_model_beside_its_baselines(capsys, folder, pairs):
    assert main(["reward", "evaluate", folder, "--pairs", pairs]) == 0
    shown = capsys.readouterr().out
    for expected in ("baseline: length", "baseline: words", "category", "donotanswer", "Safety"):
        assert expected in shown


def test_json_holds_what_is_written_for_the_gate(capsys, folder, pairs, tmp_path):
    command = ["reward", "evaluate", folder, "--pairs", pairs, "--limit", "8"]
    assert main([*command, "--json", "--output", folder]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "rm" / "reward.json").read_text())
    assert printed == {folder: written}
    assert written["held_out"]["accuracy"]["n"] == 8
    assert set(written["reward_bench"]) == {"Safety", "Reasoning"}


def test_a_model_is_asked_for(capsys, pairs):
    assert main(["reward", "evaluate", "--pairs", pairs]) == 2
    assert "no model" in capsys.readouterr().err


def test_scores_are_written(capsys, folder, pairs, tmp_path):
    source, target = tmp_path / "answers.jsonl", tmp_path / "scored.jsonl"
    asked = {"id": "1", "prompt": [{"role": "user", "content": "hi"}], "completions": ["a", "b"]}
    source.write_text(json.dumps(asked) + "\n")
    assert main(["reward", "score", folder, "--samples", str(source), "--output", str(target)]) == 0
    assert len(json.loads(target.read_text())["scores"]) == 2
    assert "2 texts scored" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["score"]])
def test_help_answers(capsys, command):
    assert main(["reward", *command, "--help"]) == 0
    assert "reward" in capsys.readouterr().out
