"""Preferences survive every kind of file, and published forms are read as what they say."""

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.data.jsonl import write_jsonl
from tutelage.data.preference_files import read_preferences, write_preferences
from tutelage.data.preference_forms import as_preference
from tutelage.errors import DataError
from tutelage.records import Comparison, Message, Preference, Prompt


def full() -> Preference:
    """One that says everything a record can."""
    prompt = Prompt(
        "p",
        (Message("system", "Be brief."), Message("user", 'Ünï "code"\u2028line 😀?')),
        source="shop",
        category="order",
        reference="42",
        check={"choices": {"A": "yes", "B": "no"}, "kwargs": [{"n": 1}, {}]},
    )
    return Preference(
        Comparison(prompt, "On its way.\n\n- now", "", "p/0-1"),
        0.1 + 0.2,
        "judge 3",
        "ai",
        rationale="first is right",
        seconds=0.25,
        created="2024-05-01T12:00:00Z",
        round=3,
        strength=-1.5,
        weight=0.5,
        orders=(1 / 3, 0.2),
        confidence=0.9,
        criteria={"honest": 2 / 3, "concise": 0.0},
        instructions="ab" * 32,
    )


def bare() -> Preference:
    """One that says as little as it can."""
    prompt = Prompt("q", (Message("user", "Hi?"),))
    return Preference(Comparison(prompt, "a", "b", "q"), 0.5, "ann")


def also_bare() -> Preference:
    return Preference(bare().comparison, 1.0, "bob", round=1)


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet", "folder"])
def test_what_is_written_is_read_back_equal(tmp_path: Path, name: str) -> None:
    preferences = [full(), bare(), also_bare()]
    assert write_preferences(tmp_path / "new" / name, preferences) == 3
    assert read_preferences(tmp_path / "new" / name) == list(enumerate(preferences, 1))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_a_folder_of_parquet_files_is_read_in_order(tmp_path: Path) -> None:
    write_preferences(tmp_path / "data" / "train-1.parquet", [also_bare()])
    write_preferences(tmp_path / "data" / "train-0.parquet", [full(), bare()])
    assert read_preferences(tmp_path) == [(1, full()), (2, bare()), (3, also_bare())]


def test_several_annotators_may_judge_one_comparison_in_one_file(tmp_path: Path) -> None:
    rows = [bare().to_json(), also_bare().to_json(), also_bare().to_json()]
    write_jsonl(tmp_path / "out.jsonl", rows[:2])
    assert len(read_preferences(tmp_path / "out.jsonl")) == 2
    write_jsonl(tmp_path / "out.jsonl", rows)
    with pytest.raises(DataError, match=r"out\.jsonl:3: id 'q' is already that of line 2"):
        read_preferences(tmp_path / "out.jsonl")


def test_faults_of_columns_name_file_and_row(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    from pyarrow import parquet

    rows = [full().to_json(), {**bare().to_json(), "p_a": 2.0}, {**bare().to_json(), "a": None}]
    kept = ("id", "prompt", "a", "b", "p_a", "annotator")
    table = pyarrow.Table.from_pylist([{key: row[key] for key in kept} for row in rows])
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError) as caught:
        read_preferences(tmp_path / "rows.parquet")
    assert "rows.parquet:2: p_a is 2.0, expected a number in [0, 1]" in str(caught.value)
    assert "rows.parquet:3: missing key 'a'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("text.parquet", b"no columns", r"text\.parquet:1: is no Parquet file"),
        ("empty.jsonl", b"", "the file is empty"),
        ("missing.parquet", None, "is no Parquet file that can be read"),
        ("missing.jsonl", None, "no such file"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_preferences(tmp_path / name)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no data")
    with pytest.raises(DataError, match="neither Parquet files nor a saved data set"):
        read_preferences(tmp_path)
    with pytest.raises(DataError, match=r"ends in \.jsonl"):
        write_preferences(tmp_path / "out.csv", [bare()])
    with pytest.raises(DataError, match="is there already"):
        write_preferences(tmp_path, [bare()])


def test_a_split_has_to_be_named_where_there_are_several(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    row = {"prompt": "Hi?", "chosen": "yes", "rejected": "no"}
    parts = {
        "train": datasets.Dataset.from_list([row]),
        "test": datasets.Dataset.from_list([row, {**row, "chosen": "certainly"}]),
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "data")
    assert len(read_preferences(tmp_path / "data", split="test")) == 2
    with pytest.raises(DataError, match="has the splits train, test, and none was named"):
        read_preferences(tmp_path / "data")
    with pytest.raises(DataError, match="there is no 'dev'"):
        read_preferences(tmp_path / "data", split="dev")


USER = {"role": "user", "content": "Hi?"}
YES, NO = ({"role": "assistant", "content": text} for text in ("yes", "no"))
FORMS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "Hi?", "chosen": "yes", "rejected": "no"},
    "messages": {"prompt": [USER], "chosen": "yes", "rejected": "no"},
    "answers as messages": {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
    "conversations": {"chosen": [USER, YES], "rejected": [USER, NO]},
    "text and conversations": {"prompt": "Hi?", "chosen": [USER, YES], "rejected": [USER, NO]},
    "transcripts": {
        "chosen": "\n\nHuman: Hi?\n\nAssistant: yes",
        "rejected": "\n\nHuman: Hi?\n\nAssistant: no",
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_published_forms_say_the_same(tmp_path: Path, form: str) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [{**FORMS[form], "score": 3}])
    [(_, preference)] = read_preferences(tmp_path / "pairs.jsonl")
    comparison = preference.comparison
    assert comparison.prompt.messages == (Message("user", "Hi?"),)
    assert (comparison.a, comparison.b, preference.p_a) == ("yes", "no", 1.0)


def test_ids_come_from_the_content_where_there_are_none() -> None:
    one = as_preference(FORMS["texts"])
    other = as_preference({**FORMS["texts"], "chosen": "certainly"})
    assert one["id"] == as_preference(FORMS["messages"])["id"]
    assert one["id"] != other["id"]
    assert one["prompt_id"] == other["prompt_id"]
    named = as_preference({**FORMS["texts"], "id": 7, "subset": "chat"})
    assert (named["id"], named["category"]) == ("7", "chat")


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [USER, YES], "rejected": [{**USER, "content": "Other?"}, NO]},
        {"chosen": [USER], "rejected": [USER]},
        {"chosen": "yes", "rejected": "no"},
        {"chosen": 1, "rejected": 2},
    ],
    ids=["other prompts", "no answer", "no prompt", "no texts"],
)
def test_what_has_no_such_form_is_a_fault(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"pairs\.jsonl:1: "):
        read_preferences(tmp_path / "pairs.jsonl")
