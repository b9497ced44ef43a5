"""Imports are whole, repeatable and checked against the evaluation; exports come back equal."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.data.jsonl import write_jsonl
from tutelage.errors import DataError
from tutelage.feedback import Event, PreferenceStore
from tutelage.feedback.exchange import (
    Imported,
    Leaks,
    Origin,
    export_preferences,
    import_preferences,
    load_feedback,
)
from tutelage.records import Comparison, Message, Preference, Prompt


def preference(number: int, **changes: Any) -> Preference:
    prompt = Prompt(f"p{number}", (Message("user", f"Question {number}?"),), source="made")
    comparison = Comparison(prompt, f"good {number}", f"bad {number}", f"p{number}/0-1")
    return replace(Preference(comparison, 0.75, "ann"), **changes)


def renamed(original: Preference, name: str, **changes: Any) -> Preference:
    return replace(original, comparison=replace(original.comparison, id=name), **changes)


def written(path: Path, *preferences: Preference) -> Path:
    write_jsonl(path, [row.to_json() for row in preferences])
    return path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PreferenceStore]:
    with PreferenceStore(tmp_path / "labels.db") as opened:
        yield opened


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet", "folder"])
def test_a_store_comes_back_equal_from_every_format(
    store: PreferenceStore, tmp_path: Path, name: str
) -> None:
    rows = [preference(1), preference(1, annotator="bob", p_a=0.5), preference(2, round=1)]
    store.add([*rows, preference(3)])
    store.record(Event("p3/0-1", "ann", "withdrawn"))
    assert export_preferences(store, tmp_path / name) == 3
    with PreferenceStore(tmp_path / "copy.db") as copy:
        first = Imported(str(tmp_path / name), 3, 3)
        assert import_preferences(copy, [tmp_path / name]) == [first]
        assert import_preferences(copy, [tmp_path / name]) == [replace(first, added=0, known=3)]
        assert copy.preferences() == store.preferences() == rows


def test_an_export_may_be_of_one_kind_or_annotator(store: PreferenceStore, tmp_path: Path) -> None:
    judge = preference(1, annotator="judge", kind="ai")
    store.add([preference(1), judge])
    assert export_preferences(store, tmp_path / "ai.jsonl", kind="ai") == 1
    assert load_feedback(tmp_path / "ai.jsonl") == [judge]
    assert export_preferences(store, tmp_path / "ann.jsonl", annotator="ann") == 1


def test_a_faulty_file_imports_nothing_of_any_file(store: PreferenceStore, tmp_path: Path) -> None:
    good = written(tmp_path / "good.jsonl", preference(1))
    rows = [preference(2).to_json(), {**preference(3).to_json(), "p_a": 2}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"rows\.jsonl:2: p_a is 2"):
        import_preferences(store, [good, tmp_path / "rows.jsonl"])
    assert store.events() == []


def test_a_contradiction_is_named_by_file_and_line_and_imports_nothing(
    store: PreferenceStore, tmp_path: Path
) -> None:
    store.add([preference(2)])
    good = written(tmp_path / "good.jsonl", preference(1))
    other = written(tmp_path / "other.jsonl", preference(3), preference(2, p_a=0.25))
    with pytest.raises(DataError, match=r"other\.jsonl:2: comparison 'p2/0-1' already has"):
        import_preferences(store, [good, other])
    assert store.preferences() == [preference(2)]
    [_, outcome] = import_preferences(store, [good, other], revise=True)
    assert (outcome.added, outcome.known) == (2, 0)
    assert {row.p_a for row in store.preferences() if row.comparison.id == "p2/0-1"} == {0.25}


def test_the_same_verdict_under_another_id_is_a_duplicate(
    store: PreferenceStore, tmp_path: Path
) -> None:
    one = preference(1)
    swapped = renamed(one, "other").swap()
    spaced = replace(one.comparison, a=" good  1\n", id="spaced")
    rows = written(
        tmp_path / "rows.jsonl",
        one,
        swapped,
        replace(one, comparison=spaced),
        renamed(one, "changed", p_a=0.25),
        renamed(one, "bob's", annotator="bob"),
        renamed(one, "later", round=1),
    )
    [outcome] = import_preferences(store, [rows])
    assert (outcome.read, outcome.added, outcome.duplicates) == (6, 4, 2)
    assert [row.comparison.id for row in store.preferences()] == [
        "p1/0-1",
        "changed",
        "bob's",
        "later",
    ]
    [again] = import_preferences(store, [rows])
    assert (again.added, again.known, again.duplicates) == (0, 4, 2)


def test_duplicates_are_found_in_the_store_and_may_be_kept(
    store: PreferenceStore, tmp_path: Path
) -> None:
    store.add([preference(1)])
    rows = written(tmp_path / "rows.jsonl", renamed(preference(1), "other"))
    assert import_preferences(store, [rows])[0].duplicates == 1
    assert import_preferences(store, [rows], keep_duplicates=True)[0].added == 1


PROMPT = "Where is the order that I placed with you on the first of last month, please?"


def asking(text: str, number: int) -> Preference:
    made = preference(number)
    prompt = replace(made.comparison.prompt, messages=(Message("user", text),))
    return replace(made, comparison=replace(made.comparison, prompt=prompt))


def evaluation(tmp_path: Path) -> tuple[Path, ...]:
    rows = [
        {"id": "e0", "prompt": [{"role": "user", "content": "Something else?"}]},
        {"id": "e1", "prompt": [{"role": "user", "content": PROMPT}]},
    ]
    write_jsonl(tmp_path / "test.jsonl", rows)
    return (tmp_path / "test.jsonl",)


def test_an_evaluation_prompt_refuses_the_import(store: PreferenceStore, tmp_path: Path) -> None:
    leaks = Leaks(evaluation(tmp_path))
    rows = written(tmp_path / "rows.jsonl", preference(1), asking(f"  {PROMPT.upper()}", 2))
    with pytest.raises(DataError) as caught:
        import_preferences(store, [rows], leaks=leaks)
    test = tmp_path / "test.jsonl"
    assert f"rows.jsonl:2: its prompt is also in {test}:2" in str(caught.value)
    assert store.events() == []


def test_what_answers_evaluation_prompts_may_be_dropped(
    store: PreferenceStore, tmp_path: Path
) -> None:
    nearly = PROMPT.replace("please", "then")
    rows = written(
        tmp_path / "rows.jsonl", preference(1), asking(PROMPT, 2), asking(nearly, 3), preference(4)
    )
    files = evaluation(tmp_path)
    [exact] = import_preferences(store, [rows], leaks=Leaks(files, drop=True))
    assert (exact.added, exact.leaks) == (3, 1)
    with PreferenceStore(tmp_path / "other.db") as other:
        # 12 of 14 runs of five words are in both: a similarity of 0.86 but for sampling error.
        [near] = import_preferences(other, [rows], leaks=Leaks(files, near=0.6, drop=True))
        assert (near.added, near.leaks) == (2, 2)
        assert other.preferences() == [preference(1), preference(4)]


def test_rows_that_do_not_say_get_source_and_annotator(
    store: PreferenceStore, tmp_path: Path
) -> None:
    row = {"prompt": "Hi?", "chosen": "yes", "rejected": "no"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    import_preferences(store, [tmp_path / "pairs.jsonl"], origin=Origin("hh", "crowd", "human"))
    import_preferences(
        store,
        [written(tmp_path / "own.jsonl", preference(1))],
        origin=Origin("hh", "crowd", "human"),
    )
    assert store.counts("source") == {"hh": 1, "made": 1}
    assert store.counts("annotator") == {"ann": 1, "crowd": 1}


def test_a_store_is_loaded_like_a_file(store: PreferenceStore, tmp_path: Path) -> None:
    store.add([preference(1), preference(2)])
    assert load_feedback(tmp_path / "labels.db") == [preference(1), preference(2)]
    export_preferences(store, tmp_path / "out.parquet")
    assert load_feedback(tmp_path / "out.parquet") == [preference(1), preference(2)]
    with pytest.raises(DataError, match="no such file"):
        load_feedback(tmp_path / "missing.jsonl")
