"""Whole files: what is counted, what is warned of, and that nothing makes the validator fail."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.jsonl import write_jsonl
from tutelage.data.schema import Schema
from tutelage.data.validate import validate
from tutelage.errors import DataError

Row = dict[str, Any]

ASK = [{"role": "user", "content": "Where is my order?"}]
GOOD: dict[str, Row] = {
    "preference": {"prompt": ASK, "chosen": "On its way.", "rejected": "No idea."},
    "labelled": {"text": "good film", "label": 1},
    "text": {"text": "Once upon a time."},
}


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def rows_of(schema: str) -> tuple[Row, Row]:
    return {"id": "before", **GOOD[schema]}, {"id": "after", **GOOD[schema]}


def test_a_named_schema_overrules_what_the_rows_look_like(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, rows_of("preference"))
    assert validate([path], schema="prompts").ok
    faults = validate([path], schema=Schema.SFT).faults
    assert [fault.line for fault in faults] == [1, 2]
    with pytest.raises(DataError, match="'poems' is no schema; expected one of sft, preference"):
        validate([path], schema="poems")


def test_unreadable_lines_are_reported_among_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(rows_of("text")[0])
    path.write_text(f"{good}\nnot json\n\n")
    report = validate([path])
    assert [(fault.line, fault.reason.split(":")[0]) for fault in report.faults] == [
        (2, "not JSON"),
        (3, "blank line; expected a JSON object"),
    ]
    assert report.files[0].rows == 1
    assert report.files[0].faults == 2


def test_missing_and_empty_files_are_faults(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    report = validate([tmp_path / "none.jsonl", tmp_path / "empty.jsonl"])
    assert [fault.reason[:12] for fault in report.faults] == ["no such file", "the file is "]


def test_rows_of_no_known_schema_are_one_fault_that_names_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"question": "?", "reply": "!"}] * 3)
    faults = validate([path]).faults
    assert len(faults) == 1
    assert "'question', 'reply'" in faults[0].reason


def test_a_repeated_id_names_the_line_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [*rows_of("text"), {"id": "before", "text": "Another."}])
    assert [str(fault) for fault in validate([path]).faults] == [
        f"{path}:3: id 'before' is already that of line 1"
    ]
    assert validate([path, path]).num_faults == 2, "ids may recur from file to file"


@pytest.mark.parametrize("odd", ["1", 1])
def test_a_column_of_integers_and_strings_is_not_cast(tmp_path: Path, odd: int | str) -> None:
    path = tmp_path / "rows.jsonl"
    usual: int | str = 1 if isinstance(odd, str) else "1"
    labels = [usual, usual, odd, usual]
    write_jsonl(path, [{"id": f"{i}", "text": f"t{i}", "label": x} for i, x in enumerate(labels)])
    faults = validate([path]).faults
    assert [fault.line for fault in faults] == [3]
    assert "label is" in faults[0].reason


def test_a_mixed_column_is_found_in_fields_no_schema_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    extras: list[object] = [1, 2.5, None, "3"]
    write_jsonl(path, [{"id": f"{i}", "text": "t", "stars": x} for i, x in enumerate(extras)])
    assert [str(fault) for fault in validate([path]).faults] == [
        f"{path}:4: stars is string here and number in other rows"
    ]


def test_strings_of_special_tokens_are_warnings(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"id": "x", "text": "He wrote <|im_end|> and </s> there."}])
    report = validate([path])
    assert report.ok
    assert [str(warning) for warning in report.warnings] == [
        f"{path}:1: text holds </s>, <|im_end|>, which is kept as plain text"
    ]


def test_traces_of_wrong_encodings_and_case_only_pairs_are_warnings(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    pair = {"prompt": ASK, "chosen": "YES  please", "rejected": "yes please"}
    write_jsonl(
        path,
        [
            {**GOOD["preference"], "id": "1", "chosen": "caf\ufffd"},
            {**GOOD["preference"], "id": "2", "chosen": "it\x92s"},
            {**pair, "id": "3"},
        ],
    )
    report = validate([path])
    assert report.ok, report.faults
    assert [(w.line, w.reason.split(",")[0]) for w in report.warnings] == [
        (1, "chosen holds U+FFFD"),
        (2, "chosen holds C1 control characters"),
        (3, "the two texts differ in upper and lower case only"),
    ]


def test_stray_control_characters_in_found_text_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"id": "x", "text": "dash \x16 dash", "label": 0}])
    assert validate([path]).ok


def test_one_leaked_prompt_among_ten_thousand_is_found(tmp_path: Path) -> None:
    train, test = tmp_path / "train.jsonl.gz", tmp_path / "test.jsonl"
    turns = [message("user", "Hello"), message("assistant", "Hi")]
    rows = [
        {"id": f"{i}", "messages": [message("user", f"Question {i}?"), turns[1]]}
        for i in range(10_000)
    ]
    rows[7_654]["messages"] = [
        message("system", "Be kind."),
        message("user", "what IS\n the  capital of France? "),
        message("assistant", "Paris."),
        message("user", "And of Spain?"),
        message("assistant", "Madrid."),
    ]
    write_jsonl(train, rows)
    write_jsonl(
        test,
        [
            {"id": "t1", "prompt": [message("user", "What is the capital of Italy?")]},
            {"id": "t2", "prompt": [message("user", "What is the capital of France?")]},
            {"id": "t3", "prompt": [*turns, message("user", "Question 5?")]},
        ],
    )
    report = validate([train], against=[test])
    assert [str(fault) for fault in report.faults] == [
        f"{train}:7655: its prompt is also in {test}:2; remove it on one side"
    ]
    assert report.files[0].leaks == 1
    assert validate([train]).ok


def test_a_file_is_not_compared_with_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, rows_of("text"))
    with pytest.raises(DataError, match="on one side only"):
        validate([path], against=[tmp_path / "." / "rows.jsonl"])


def test_the_summary_counts_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        # Lengths of a and b in characters: 4 and 2, 1 and 3, 2 and 2, 3 and 1.
        {"a": "aaaa", "b": "bb", "p_a": 1.0, "source": "s"},
        {"a": "a", "b": "bbb", "p_a": 0.2, "source": "s"},
        {"a": "aa", "b": "bb", "p_a": 0.5, "source": "t"},
        {"a": "aaa", "b": "b", "p_a": 0.1},
    ]
    write_jsonl(
        path,
        [{"id": f"{i}", "prompt": ASK, "annotator": "me", **row} for i, row in enumerate(rows)],
    )
    summary = validate([path], max_length=len(ASK[0]["content"]) + 3).files[0]
    assert summary.rows == 4
    assert summary.labels == {"a": 1, "b": 2, "tie": 1}
    assert summary.sources == {"s": 2, "t": 1}
    assert summary.longer_is_better == pytest.approx(2 / 3)
    assert summary.too_long == 1
    assert summary.lengths["completion"] == {"min": 1, "p50": 2, "p90": 3, "p99": 4, "max": 4}
    assert summary.lengths["prompt"]["p50"] == len("Where is my order?")


def test_texts_that_recur_are_counted_as_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    texts = ["one", "two", " one\n", "One", "two"]
    write_jsonl(path, [{"id": f"{i}", "text": text} for i, text in enumerate(texts)])
    assert validate([path]).files[0].duplicates == 2


def test_length_is_measured_in_the_unit_that_is_passed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"id": "x", "text": "three short words"}])
    words = validate([path], length=lambda text: len(text.split())).files[0]
    assert words.lengths["text"]["max"] == 3


def test_all_faults_are_counted_when_too_many_to_list(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"id": f"{i}", "text": ""} for i in range(50)])
    report = validate([path], max_listed=10)
    assert report.num_faults == report.files[0].faults == 50
    assert len(report.faults) == 10


def test_a_report_is_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [*rows_of("labelled"), {"id": "x", "text": "<s>", "label": "x"}])
    report = validate([path])
    told = json.loads(json.dumps(report.to_json()))
    assert told["ok"] is False
    assert told["faults"][0].startswith(f"{path}:3: label is string")
    assert told["files"][0]["labels"] == {"1": 2}
    assert told["files"][0]["schema"] == "labelled"


def test_memory_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, ({"id": f"{i}", "text": f"{i} " + "word " * 1_000} for i in range(500)))
    assert path.stat().st_size > 2_500_000
    tracemalloc.start()
    assert validate([path]).ok
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 20 rows to infer the schema from, then about 150 bytes a row for hashes and lengths.
    assert peak < 700_000


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(content=st.binary(max_size=300))
def test_no_bytes_make_the_validator_fail(scratch: Path, content: bytes) -> None:
    path = scratch / "fuzzed.jsonl"
    path.write_bytes(content)
    assert all(fault.reason for fault in validate([path]).faults)


@given(content=st.binary(max_size=200))
def test_no_compressed_bytes_make_the_validator_fail(scratch: Path, content: bytes) -> None:
    path = scratch / "fuzzed.jsonl.gz"
    path.write_bytes(gzip.compress(content)[: max(1, len(content))])
    assert validate([path]).num_faults >= 0
