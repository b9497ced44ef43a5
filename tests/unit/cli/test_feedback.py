"""`tutelage feedback import`, `export` and `summary`, as typed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.cli.main import main
from tutelage.data.jsonl import write_jsonl


def row(number: int, annotator: str = "ann", **changes: Any) -> dict[str, Any]:
    prompt = [{"role": "user", "content": f"Question {number}?"}]
    texts = {"a": f"good {number}", "b": f"bad {number}"}
    judged = {"p_a": 1.0, "annotator": annotator, "source": "shop"}
    return {"id": f"{number}", "prompt": prompt, **texts, **judged, **changes}


@pytest.fixture
def labels(tmp_path: Path) -> str:
    rows = [row(i) for i in range(4)] + [row(i, "bob", p_a=float(i > 0)) for i in range(3)]
    write_jsonl(tmp_path / "labels.jsonl", rows)
    return str(tmp_path / "labels.jsonl")


@pytest.fixture
def store(tmp_path: Path, labels: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["feedback", "import", str(tmp_path / "labels.db"), labels]) == 0
    capsys.readouterr()
    return str(tmp_path / "labels.db")


def test_an_import_says_what_became_of_each_file(capsys, tmp_path, labels):
    command = ["feedback", "import", str(tmp_path / "new.db"), labels]
    assert main(command) == 0
    assert "labels.jsonl: 7 read, 7 added, 0 known, 0 dup" in capsys.readouterr().out
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "7 read, 0 added, 7 known, 0 duplicates, 0 leaks" in shown
    assert "new.db: 7 preferences" in shown


def test_leaks_refuse_an_import_or_are_dropped(capsys, tmp_path, labels):
    write_jsonl(tmp_path / "test.jsonl", [{"id": "e", "prompt": row(2)["prompt"]}])
    command = ["feedback", "import", str(tmp_path / "new.db"), labels]
    against = ["--against", str(tmp_path / "test.jsonl")]
    assert main([*command, *against]) == 2
    assert "labels.jsonl:3: its prompt is also in" in capsys.readouterr().err
    assert main([*command, *against, "--drop-leaks"]) == 0
    assert "7 read, 5 added, 0 known, 0 duplicates, 2 leaks" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--drop-leaks"], ["--near", "0.8"]])
def test_options_about_leaks_need_prompts(capsys, tmp_path, labels, options):
    assert main(["feedback", "import", str(tmp_path / "new.db"), labels, *options]) == 2
    assert "--against" in capsys.readouterr().err
    assert not (tmp_path / "new.db").exists()


def test_an_import_needs_files(capsys, tmp_path):
    assert main(["feedback", "import", str(tmp_path / "new.db")]) == 2
    assert "no file to import" in capsys.readouterr().err


def test_a_store_is_exported(capsys, tmp_path, store):
    target = tmp_path / "out.parquet"
    assert main(["feedback", "export", store, str(target), "--annotator", "bob"]) == 0
    assert f"{target}: 3 preferences" in capsys.readouterr().out
    assert main(["feedback", "import", str(tmp_path / "copy.db"), str(target)]) == 0
    assert "3 read, 3 added" in capsys.readouterr().out


def test_the_summary_is_a_table_or_json(capsys, store):
    assert main(["feedback", "summary", store]) == 0
    shown = capsys.readouterr().out
    for expected in ("contradictions", "shop 7", "human 7", "bob", "66.7%", "kappa"):
        assert expected in shown
    assert main(["feedback", "summary", store, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["preferences"], found["comparisons"], found["contradictions"]) == (7, 4, 1)
    assert found["agreement"][0]["comparisons"] == 3


@pytest.mark.parametrize("command", ["export", "summary"])
def test_a_store_that_is_not_there_is_named_and_not_made(capsys, tmp_path, command):
    missing = tmp_path / "typo.db"
    arguments = ["feedback", command, str(missing)]
    if command == "export":
        arguments.append(str(tmp_path / "out.jsonl"))
    assert main(arguments) == 2
    assert "there is no preference store" in capsys.readouterr().err
    assert not missing.exists()


@pytest.mark.parametrize("command", [[], ["import"], ["export"], ["summary"]])
def test_help_answers(capsys, command):
    assert main(["feedback", *command, "--help"]) == 0
    assert "feedback" in capsys.readouterr().out
