"""Rows of every schema, right and broken: a fault is named by file, line and reason."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tutelage.data.jsonl import Fault, write_jsonl
from tutelage.data.schema import Schema, detect_schema, row_faults
from tutelage.data.validate import validate

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
        "orders": [0.95, 0.85],
        "criteria": {"honest": 0.5},
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
    (
        "one order",
        "judged",
        with_("judged", orders=[0.5]),
        "orders has 1 values, expected one for each order of showing",
    ),
    (
        "order outside",
        "judged",
        with_("judged", orders=[0.5, 1.5]),
        "orders[1] is 1.5, expected a number in [0, 1]",
    ),
    (
        "criterion text",
        "judged",
        with_("judged", criteria={"honest": "yes"}),
        "criteria.honest is string, expected a number",
    ),
    ("sure by half again", "judged", with_("judged", confidence=1.5), "confidence is 1.5"),
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


def test_the_examples_of_the_documentation_are_right() -> None:
    page = Path(__file__).parents[3] / "docs" / "data.md"
    examples = re.findall(r"```json\n(.*?)\n```", page.read_text("utf-8"), re.DOTALL)
    found = set()
    for text in examples:
        row = json.loads(text)
        schema = detect_schema(row)
        assert schema is not None
        assert row_faults(row, schema) == []
        found.add(schema)
    assert found == set(Schema)


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


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(rows=st.lists(_ROW, max_size=3), schema=st.sampled_from([None, *Schema]))
@example(rows=[with_("reference", sent_more=[])], schema=None)
@example(rows=[with_("choice", choices=None)], schema=None)
def test_no_rows_make_the_validator_fail(
    scratch: Path, rows: list[Row], schema: Schema | None
) -> None:
    path, other = scratch / "fuzzed.jsonl", scratch / "against.jsonl"
    for file in (path, other):
        file.write_text("\n".join(json.dumps(row) for row in rows))
    report = validate([path], schema=schema, against=[other], max_length=10)
    assert json.dumps(report.to_json())
    assert all(isinstance(fault, Fault) and fault.reason for fault in report.faults)
