"""`tutelage constitution`: what is shown, and that its tasks are stages."""

import json

from tutelage.cli.main import main
from tutelage.judging.constitution import BUNDLED, load_constitution


def shown(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_all_that_come_with_the_package_are_listed(capsys):
    assert main(["constitution", "show"]) == 0
    text = shown(capsys)
    for name in BUNDLED:
        assert name in text
        assert load_constitution(name).sha256[:12] in text


def test_one_is_shown_with_version_and_principles(capsys):
    assert main(["constitution", "show", "medical"]) == 0
    text, found = shown(capsys), load_constitution("medical")
    assert found.sha256 in text
    for principle in found.principles:
        assert principle.id in text
        assert " ".join(principle.question.split())[:40] in text


def test_faults_of_a_file_are_shown_by_line(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nprinciples:\n- id: one\n  critique: Is it?\n")
    assert main(["constitution", "show", str(path)]) == 2
    assert f"{path}:3" in capsys.readouterr().err


def test_revise_and_prefer_are_stages(capsys, tmp_path):
    record = "name ana; plan basic; bill $47; due may 17 | what is my bill this month?"
    row = {
        "id": "q",
        "prompt": [{"role": "user", "content": record}],
        "completions": ["your bill is $51.", "your bill is $47."],
    }
    samples = tmp_path / "samples.jsonl"
    samples.write_text(json.dumps(row) + "\n")
    given = [
        "--constitution",
        "customer-service",
        "--samples",
        str(samples),
        "--writer",
        "helpdesk",
    ]
    for task, name in (("revise", "sft.jsonl"), ("prefer", "preferences.jsonl")):
        folder = tmp_path / task
        assert main(["constitution", task, *given, "--output", str(folder)]) == 0
        assert (folder / name).exists()
        assert (folder / "manifest.json").exists()
