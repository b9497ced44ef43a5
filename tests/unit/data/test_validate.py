"""Broken files: each fault is named by file, line and reason, and nothing else is."""

import copy
import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tutelage.data.jsonl import Fault, write_jsonl
from tutelage.data.schema import Schema
from tutelage.data.validate import Report, validate
from tutelage.errors import DataError

Row = dict[str, Any]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASK = [message("user", "Where is my order?")]
GOOD: dict[str, Row] = {
    "sft": {"id": "x", "messages": [*ASK, message("assistant", "On its way.")], "source": "made"},
    "preference": {"id": "x", "prompt": ASK, "chosen": "On its way.", "rejected": "No idea."},
    "judged": {
        "id": "x/0-1",
        "prompt_id": "x",
        "prompt": ASK,
        "a": "On its way.",
        "b": "No idea.",
        "p_a": 0.9,
        "annotator": "judge",
        "kind": "ai",
        "seconds": None,
        "round": 0,
    },
    "prompts": {"id": "x", "prompt": [message("system", "Be brief."), *ASK], "category": "order"},
    "samples": {"id": "x", "prompt": ASK, "completions": ["On its way.", {"text": ""}]},
    "number": {"id": "x", "prompt": ASK, "answer_type": "number", "answer": "1,200"},
    "choice": {
        "id": "x",
        "prompt": ASK,
        "answer_type": "choice",
        "answer": "B",
        "choices": {"A": "yes", "B": "no"},
    },
    "tests": {
        "id": "x",
        "prompt": ASK,
        "answer_type": "python_tests",
        "tests": ["assert f() == 1"],
        "setup": "",
    },
    "constraints": {
        "id": "x",
        "prompt": ASK,
        "answer_type": "constraints",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    },
    "labelled": {"id": "x", "text": "good film", "label": 1},
    "text": {"id": "x", "text": "Once upon a time."},
    "pairs": {"id": "x", "sent_more": "She said.", "sent_less": "He said."},
    "reference": {
        "id": "x",
        "prompt": ASK,
        "correct_answers": ["yes"],
        "incorrect_answers": ["no"],
        "answer_type": "reference_sets",
    },
    "behaviour": {
        "id": "x",
        "prompt": ASK,
        "answer_matching_behavior": " (A)",
        "answer_not_matching_behavior": " (B)",
    },
}
SCHEMA_OF = {
    "judged": "preference",
    "number": "verifiable",
    "choice": "verifiable",
    "tests": "verifiable",
    "constraints": "verifiable",
    "pairs": "eval",
    "reference": "eval",
    "behaviour": "eval",
}


def changed(kind: str, edit: Callable[[Row], object]) -> Row:
    row = copy.deepcopy(GOOD[kind])
    edit(row)
    return row


def without(kind: str, key: str) -> Row:
    return changed(kind, lambda row: row.pop(key))


def with_(kind: str, /, **values: object) -> Row:
    return changed(kind, lambda row: row.update(values))


def conversation(*roles: str) -> Row:
    return {"id": "x", "messages": [message(role, f"I am {role}.") for role in roles]}


BROKEN_ROWS: list[tuple[str, str, Row, str]] = [
    # What is broken, kind of the other rows, the row, part of the reason.
    ("no messages", "sft", without("sft", "messages"), "missing key 'messages'"),
    ("no id", "sft", without("sft", "id"), "missing key 'id'"),
    ("null id", "sft", with_("sft", id=None), "id is null, expected a string"),
    ("integer id", "sft", with_("sft", id=7), "id is integer, expected a string"),
    ("null messages", "sft", with_("sft", messages=None), "messages is null, expected an array"),
    ("no message", "sft", with_("sft", messages=[]), "messages is an empty array"),
    ("message no object", "sft", with_("sft", messages=["hi"]), "messages[0] is string"),
    (
        "no content",
        "sft",
        with_("sft", messages=[{"role": "user"}]),
        "messages[0] has no key 'content'",
    ),
    (
        "null content",
        "sft",
        changed("sft", lambda row: row["messages"][1].update(content=None)),
        "messages[1].content is null, expected a string",
    ),
    (
        "empty content",
        "sft",
        changed("sft", lambda row: row["messages"][1].update(content=" \n")),
        "messages[1].content is empty",
    ),
    (
        "unknown role",
        "sft",
        changed("sft", lambda row: row["messages"][1].update(role="bot")),
        "messages[1].role is 'bot', expected one of system, user, assistant, tool",
    ),
    (
        "assistant begins",
        "sft",
        conversation("assistant", "user", "assistant"),
        "messages[0].role is assistant at the beginning, expected system or user",
    ),
    (
        "two users in a row",
        "sft",
        conversation("user", "user", "assistant"),
        "messages[1].role is user after user, expected assistant",
    ),
    (
        "late system message",
        "sft",
        conversation("user", "assistant", "system", "user", "assistant"),
        "messages[2].role is system after assistant",
    ),
    ("wrong last role", "sft", conversation("user"), "messages ends with user, expected assistant"),
    (
        "prompt ends with assistant",
        "prompts",
        with_("prompts", prompt=conversation("user", "assistant")["messages"]),
        "prompt ends with assistant, expected user or tool",
    ),
    ("bad mode", "prompts", with_("prompts", mode="poem"), "mode is 'poem', expected one of chat"),
    (
        "continuation of a dialogue",
        "prompts",
        with_("prompts", mode="continuation"),
        "prompt has 2 messages, expected one when mode is continuation",
    ),
    ("chosen only", "preference", without("preference", "rejected"), "missing key 'rejected'"),
    ("empty chosen", "preference", with_("preference", chosen=""), "chosen is empty"),
    ("number chosen", "preference", with_("preference", chosen=3), "chosen is integer, expected a"),
    (
        "chosen equals rejected",
        "preference",
        # The same word with a composed and a decomposed accent, and other white space.
        with_("preference", chosen="caf\u00e9  au lait\n", rejected=" cafe\u0301 au lait"),
        "chosen and rejected are the same text",
    ),
    ("equal a and b", "judged", with_("judged", b="On its  way. "), "a and b are the same text"),
    (
        "p_a above one",
        "judged",
        with_("judged", p_a=1.5),
        "p_a is 1.5, expected a number in [0, 1]",
    ),
    ("p_a text", "judged", with_("judged", p_a="0.9"), "p_a is string, expected a number"),
    ("p_a boolean", "judged", with_("judged", p_a=True), "p_a is boolean, expected a number"),
    ("no annotator", "judged", without("judged", "annotator"), "missing key 'annotator'"),
    ("unknown kind", "judged", with_("judged", kind="robot"), "kind is 'robot', expected one of"),
    ("fractional round", "judged", with_("judged", round=0.5), "round is number, expected an int"),
    ("no completion", "samples", with_("samples", completions=[]), "completions is an empty array"),
    (
        "completion no text",
        "samples",
        with_("samples", completions=["ok", {"tokens": []}]),
        "completions[1] has no key 'text'",
    ),
    ("no answer", "number", without("number", "answer"), "missing key 'answer'"),
    ("answer no number", "number", with_("number", answer="a dozen"), "answer is 'a dozen'"),
    ("unknown answer type", "number", with_("number", answer_type="song"), "answer_type is 'song'"),
    ("answer no choice", "choice", with_("choice", answer="C"), "answer is 'C', expected one of A"),
    ("no setup", "tests", without("tests", "setup"), "missing key 'setup', or 'prefix'"),
    ("unequal lists", "constraints", with_("constraints", kwargs=[{}, {}]), "kwargs has 2 entries"),
    ("no label", "labelled", without("labelled", "label"), "missing key 'label', 'score'"),
    ("boolean label", "labelled", with_("labelled", label=True), "label is boolean, expected an"),
    ("empty text", "text", with_("text", text="\t"), "text is empty"),
    ("text is a list", "text", with_("text", text=["a"]), "text is array, expected a string"),
    ("equal sentences", "pairs", with_("pairs", sent_less="She said."), "are the same text"),
    ("no wrong answers", "reference", without("reference", "incorrect_answers"), "missing key"),
    (
        "control character",
        "sft",
        changed("sft", lambda row: row["messages"][0].update(content="bell \x07")),
        "messages[0].content holds the control characters U+0007",
    ),
    (
        "NUL in found text",
        "text",
        with_("text", text="one\x00two"),
        "text holds the control characters U+0000",
    ),
    (
        "row of another schema",
        "prompts",
        {**GOOD["preference"]},
        "a row of schema preference in a file of schema prompts",
    ),
]


def neighbours(kind: str) -> tuple[Row, Row]:
    return {**GOOD[kind], "id": "before"}, {**GOOD[kind], "id": "after"}


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [broken[1:] for broken in BROKEN_ROWS],
    ids=[broken[0] for broken in BROKEN_ROWS],
)
def test_a_broken_row_is_named_by_file_line_and_reason(
    tmp_path: Path, kind: str, row: Row, reason: str
) -> None:
    path = tmp_path / "rows.jsonl"
    before, after = neighbours(kind)
    write_jsonl(path, [before, row, after])
    report = validate([path])
    assert not report.ok
    assert {(fault.file, fault.line) for fault in report.faults} == {(str(path), 2)}
    assert any(reason in fault.reason for fault in report.faults), report.faults
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("kind", GOOD)
def test_good_rows_have_no_fault_and_their_schema_is_found(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows.jsonl.gz"
    write_jsonl(path, neighbours(kind))
    report = validate([path])
    assert report.ok, report.faults
    assert report.num_warnings == 0, report.warnings
    assert report.files[0].schema == SCHEMA_OF.get(kind, kind)
    assert report.files[0].rows == 2


def test_a_broken_first_row_does_not_decide_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    prompt_only = {"id": "x", "prompt": ASK}
    write_jsonl(path, [prompt_only, *neighbours("preference")])
    report = validate([path])
    assert report.files[0].schema is Schema.PREFERENCE
    assert {fault.line for fault in report.faults} == {1}


def test_a_named_schema_overrules_what_the_rows_look_like(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, neighbours("preference"))
    assert validate([path], schema="prompts").ok
    faults = validate([path], schema=Schema.SFT).faults
    assert [fault.line for fault in faults] == [1, 2]
    with pytest.raises(DataError, match="'poems' is no schema; expected one of sft, preference"):
        validate([path], schema="poems")


def test_unreadable_lines_are_reported_among_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(GOOD["text"])
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
    write_jsonl(path, [*neighbours("text"), {"id": "before", "text": "Another."}])
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
    write_jsonl(path, neighbours("text"))
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
    write_jsonl(path, [*neighbours("labelled"), with_("labelled", text="<s>", label="x")])
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


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    sorted({key for row in GOOD.values() for key in row} | {"mode", "reference", "text", "extra"})
)
_CONVERSATION = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["system", "user", "assistant", "tool", "bot", None, 3]),
            "content": st.text() | _JSON,
        },
    ),
    max_size=4,
)
_ROW = st.dictionaries(_KEYS, _JSON | _CONVERSATION, max_size=6) | st.builds(
    lambda row, extra: {**row, **extra},
    st.sampled_from(list(GOOD.values())),
    st.dictionaries(_KEYS, _JSON | _CONVERSATION, max_size=2),
)


def _report_of(tmp: Path, content: bytes, schema: Schema | None) -> Report:
    path = tmp / "fuzzed.jsonl"
    path.write_bytes(content)
    return validate([path], schema=schema, against=[], max_length=10)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(content=st.binary(max_size=300))
def test_no_bytes_make_the_validator_fail(scratch: Path, content: bytes) -> None:
    report = _report_of(scratch, content, None)
    assert all(isinstance(fault, Fault) and fault.reason for fault in report.faults)


@given(content=st.binary(max_size=200))
def test_no_compressed_bytes_make_the_validator_fail(scratch: Path, content: bytes) -> None:
    path = scratch / "fuzzed.jsonl.gz"
    path.write_bytes(gzip.compress(content)[: max(1, len(content))])
    assert validate([path]).num_faults >= 0


@given(rows=st.lists(_ROW, max_size=3), schema=st.sampled_from([None, *Schema]))
@example(rows=[with_("reference", sent_more=[])], schema=None)
@example(rows=[with_("choice", choices=None)], schema=None)
def test_no_rows_make_the_validator_fail(
    scratch: Path, rows: list[Row], schema: Schema | None
) -> None:
    content = "\n".join(json.dumps(row) for row in rows).encode()
    report = _report_of(scratch, content, schema)
    assert json.dumps(report.to_json())
    path, other = scratch / "fuzzed.jsonl", scratch / "against.jsonl"
    other.write_bytes(content)
    assert validate([path], against=[other]).num_faults >= report.files[0].leaks
