"""The shapes a row of data may have, and what is wrong with one that has none of them.

    sft         id, messages                    a conversation; its last message is imitated
    preference  id, prompt, chosen, rejected    or a, b, p_a, annotator: our own record
    prompts     id, prompt                      waits for the assistant's answer
    samples     id, prompt, completions         a prompt with several answers
    verifiable  id, prompt, answer_type, ...    a prompt whose answer a program can check
    labelled    id, text, label|score|emotions
    text        id, text
    eval        id and one of four forms        reference sets, choices, pairs, behaviour

Nothing is converted: an integer where a string belongs is a fault, not the string of it.
Keys that a schema does not name are carried along unread.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from typing import Any

from tutelage.data.text import normalize

__all__ = ["Schema", "detect_schema", "infer_schema", "json_kind", "row_faults"]

Row = Mapping[str, Any]
Check = Callable[[str, Any], Iterable[str]]
"""Takes the place a value stands at and the value; yields what is wrong with it."""


class Schema(StrEnum):
    """What a file holds."""

    SFT = "sft"
    PREFERENCE = "preference"
    PROMPTS = "prompts"
    SAMPLES = "samples"
    VERIFIABLE = "verifiable"
    LABELLED = "labelled"
    TEXT = "text"
    EVAL = "eval"


_MARKS: tuple[tuple[Schema, frozenset[str]], ...] = (
    (Schema.PREFERENCE, frozenset({"chosen", "rejected", "p_a", "annotator"})),
    (Schema.SAMPLES, frozenset({"completions"})),
    (
        Schema.EVAL,
        frozenset(
            {
                "correct_answers",
                "incorrect_answers",
                "context_condition",
                "sent_more",
                "sent_less",
                "answer_matching_behavior",
                "answer_not_matching_behavior",
            }
        ),
    ),
    (Schema.VERIFIABLE, frozenset({"answer_type"})),
    (Schema.SFT, frozenset({"messages"})),
    (Schema.LABELLED, frozenset({"label", "score", "emotions"})),
    (Schema.PROMPTS, frozenset({"prompt"})),
    (Schema.TEXT, frozenset({"text"})),
)
"""Keys that give a schema away, the most telling first."""


def detect_schema(row: Row) -> Schema | None:
    """The schema whose telling keys the row has, complete or not."""
    return next((schema for schema, keys in _MARKS if not keys.isdisjoint(row)), None)


def infer_schema(rows: Iterable[Row]) -> Schema | None:
    """The schema most of the rows look like, so that one broken row does not decide."""
    votes = Counter(schema for row in rows if (schema := detect_schema(row)) is not None)
    return votes.most_common(1)[0][0] if votes else None


_KINDS = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    list: "array",
    dict: "object",
}


def json_kind(value: Any) -> str:
    """JSON's name for the type of a value, with integers told apart from other numbers."""
    return _KINDS.get(type(value), type(value).__name__)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _string(where: str, value: Any, *, empty: bool = False) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{where} is {json_kind(value)}, expected a string"
    elif not empty and not value.strip():
        yield f"{where} is empty"


def _number(
    where: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> Iterator[str]:
    if not _is_number(value):
        yield f"{where} is {json_kind(value)}, expected a number"
    elif not low <= value <= high:
        yield f"{where} is {value}, expected a number in [{low:g}, {high:g}]"


def _positive(where: str, value: Any) -> Iterator[str]:
    faults = list(_number(where, value))
    yield from faults
    if not faults and not 0 < value < math.inf:
        yield f"{where} is {value}, expected a number above 0"


def _integer(where: str, value: Any) -> Iterator[str]:
    if type(value) is not int:
        yield f"{where} is {json_kind(value)}, expected an integer"


def _object(where: str, value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is {json_kind(value)}, expected an object"


def _one_of(where: str, value: Any, *, allowed: tuple[str, ...]) -> Iterator[str]:
    if value not in allowed:
        yield f"{where} is {_shown(value)}, expected one of {', '.join(allowed)}"


def _label(where: str, value: Any) -> Iterator[str]:
    if type(value) not in (int, str):
        yield f"{where} is {json_kind(value)}, expected an integer or a string"
    elif value == "":
        yield f"{where} is empty"


def _list(where: str, value: Any, *, item: Check) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{where} is {json_kind(value)}, expected an array"
    elif not value:
        yield f"{where} is an empty array"
    else:
        for i, element in enumerate(value):
            yield from item(f"{where}[{i}]", element)


def _string_or_strings(where: str, value: Any) -> Iterator[str]:
    return _list(where, value, item=_string) if isinstance(value, list) else _string(where, value)


def _completion(where: str, value: Any) -> Iterator[str]:
    """A string or `Completion.to_json`; empty where the policy stopped at once."""
    if not isinstance(value, dict):
        yield from _string(where, value, empty=True)
    elif "text" not in value:
        yield f"{where} has no key 'text'"
    else:
        yield from _string(f"{where}.text", value["text"], empty=True)


_TURNS: Mapping[str | None, tuple[str, ...]] = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
"""Who may speak after whom; None is the beginning."""
_ROLES = ("system", "user", "assistant", "tool")


def _messages(where: str, value: Any, *, last: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(value, list) or not value:
        found = "an empty array" if value == [] else json_kind(value)
        yield f"{where} is {found}, expected an array of messages"
        return
    role: str | None = None
    for i, message in enumerate(value):
        place = f"{where}[{i}]"
        faults = list(_message(place, message))
        yield from faults
        if faults:
            # What follows a broken message cannot be told right from wrong.
            return
        if message["role"] not in _TURNS[role]:
            after = f"after {role}" if role else "at the beginning"
            expected = " or ".join(_TURNS[role])
            yield f"{place}.role is {message['role']} {after}, expected {expected}"
        role = message["role"]
    if role not in last:
        yield f"{where} ends with {role}, expected {' or '.join(last)}"


def _message(where: str, value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is {json_kind(value)}, expected an object with role and content"
        return
    for key in ("role", "content"):
        if key not in value:
            yield f"{where} has no key {key!r}"
    if "role" in value:
        yield from _one_of(f"{where}.role", value["role"], allowed=_ROLES)
    if "content" in value:
        yield from _string(f"{where}.content", value["content"])


_probability: Check = partial(_number, low=0.0, high=1.0)
_PROMPT: Check = partial(_messages, last=("user", "tool"))
_OPTIONAL_TEXT: Check = partial(_string, empty=True)
_PROMPT_FIELDS: Mapping[str, Check] = {"id": _string, "prompt": _PROMPT}


def _both_orders(where: str, value: Any) -> Iterator[str]:
    yield from _list(where, value, item=_probability)
    if isinstance(value, list) and len(value) != 2:
        yield f"{where} has {len(value)} values, expected one for each order of showing"


def _probabilities(where: str, value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is {json_kind(value)}, expected an object"
        return
    for name, probability in value.items():
        yield from _probability(f"{where}.{name}", probability)


_REQUIRED: Mapping[Schema, Mapping[str, Check]] = {
    Schema.SFT: {"id": _string, "messages": partial(_messages, last=("assistant",))},
    Schema.PREFERENCE: _PROMPT_FIELDS,
    Schema.PROMPTS: _PROMPT_FIELDS,
    Schema.SAMPLES: {**_PROMPT_FIELDS, "completions": partial(_list, item=_completion)},
    Schema.VERIFIABLE: {**_PROMPT_FIELDS, "answer_type": _string},
    Schema.LABELLED: {"id": _string, "text": _string},
    Schema.TEXT: {"id": _string, "text": _string},
    Schema.EVAL: {"id": _string},
}

_CHOSEN: Mapping[str, Check] = {"chosen": _string, "rejected": _string}
_JUDGED: Mapping[str, Check] = {
    # A policy may stop at once, and that is an answer to be judged like any other.
    "a": _OPTIONAL_TEXT,
    "b": _OPTIONAL_TEXT,
    "p_a": _probability,
    "annotator": _string,
}
_REFERENCE_SETS: Mapping[str, Check] = {
    "prompt": _PROMPT,
    "correct_answers": partial(_list, item=_string),
    "incorrect_answers": partial(_list, item=_string),
}
_SENTENCE_PAIR: Mapping[str, Check] = {"sent_more": _string, "sent_less": _string}
_BEHAVIOUR: Mapping[str, Check] = {
    "prompt": _PROMPT,
    "answer_matching_behavior": _string_or_strings,
    "answer_not_matching_behavior": _string_or_strings,
}
_CHOICE: Mapping[str, Check] = {
    "prompt": _PROMPT,
    "choices": _object,
    "answer": _string,
    "context_condition": _string,
}
_EVAL_FORMS = (_REFERENCE_SETS, _SENTENCE_PAIR, _BEHAVIOUR, _CHOICE)
_ANSWER_FORMS: Mapping[str, Mapping[str, Check]] = {
    "number": {"answer": _string},
    "choice": {"answer": _string},
    "text": {"answer": _string},
    "python_tests": {"tests": partial(_list, item=_string)},
    "constraints": {
        "instruction_id_list": partial(_list, item=_string),
        "kwargs": partial(_list, item=_object),
    },
}

_COMMON: Mapping[str, Check] = {"source": _OPTIONAL_TEXT, "category": _OPTIONAL_TEXT}
_PROMPT_EXTRAS: Mapping[str, Check] = {
    **_COMMON,
    "mode": partial(_one_of, allowed=("chat", "continuation")),
    "reference": _string_or_strings,
    "followups": partial(_list, item=_string),
}
_OPTIONAL: Mapping[Schema, Mapping[str, Check]] = {
    Schema.SFT: _COMMON,
    Schema.PREFERENCE: {
        **_PROMPT_EXTRAS,
        "kind": partial(_one_of, allowed=("human", "ai", "verifier", "synthetic")),
        "feedback": _OPTIONAL_TEXT,
        "rationale": _OPTIONAL_TEXT,
        "created": _OPTIONAL_TEXT,
        "seconds": partial(_number, low=0.0),
        "round": _integer,
        "strength": _number,
        "weight": _positive,
        "prompt_id": _string,
        "orders": _both_orders,
        "confidence": _probability,
        "criteria": _probabilities,
        "instructions": _OPTIONAL_TEXT,
    },
    Schema.PROMPTS: _PROMPT_EXTRAS,
    Schema.SAMPLES: _PROMPT_EXTRAS,
    Schema.VERIFIABLE: {
        **_PROMPT_EXTRAS,
        "choices": _object,
        "solution": _string,
        "setup": _OPTIONAL_TEXT,
        "prefix": _string,
        "entry_point": _string,
    },
    Schema.LABELLED: {
        **_COMMON,
        "label": _label,
        "score": _number,
        "emotions": partial(_list, item=_string),
    },
    Schema.TEXT: {**_COMMON, "title": _OPTIONAL_TEXT, "author": _OPTIONAL_TEXT},
    Schema.EVAL: _COMMON,
}
"""Checked where they occur with a value; null stands for absent."""


def row_faults(row: Row, schema: Schema) -> list[str]:
    """Everything wrong with one row of the given schema, on its own; empty when it is right."""
    required = {**_REQUIRED[schema], **_form(row, schema)}
    faults: list[str] = []
    for key, check in required.items():
        faults += check(key, row[key]) if key in row else [f"missing key {key!r}"]
    for key, check in _OPTIONAL[schema].items():
        if row.get(key) is not None:
            faults += check(key, row[key])
    if not faults:
        faults += _RULES[schema](row)
    return faults


def _form(row: Row, schema: Schema) -> Mapping[str, Check]:
    """The required fields that depend on which form of its schema the row has."""
    if schema is Schema.PREFERENCE:
        return _CHOSEN if "chosen" in row or "rejected" in row else _JUDGED
    if schema is Schema.VERIFIABLE:
        kind = row.get("answer_type")
        return _ANSWER_FORMS.get(kind, {}) if isinstance(kind, str) else {}
    if schema is Schema.EVAL:
        return max(_EVAL_FORMS, key=lambda form: len((form.keys() - {"prompt"}) & row.keys()))
    return {}


def _no_rule(row: Row) -> Iterator[str]:
    yield from ()


def _prompt_rule(row: Row) -> Iterator[str]:
    if row.get("mode") == "continuation" and len(row["prompt"]) != 1:
        found = len(row["prompt"])
        yield f"prompt has {found} messages, expected one when mode is continuation"


def _preference_rule(row: Row) -> Iterator[str]:
    first, second = ("chosen", "rejected") if "chosen" in row else ("a", "b")
    if normalize(row[first]) == normalize(row[second]):
        yield f"{first} and {second} are the same text"


def _verifiable_rule(row: Row) -> Iterator[str]:
    kind = row["answer_type"]
    if kind not in _ANSWER_FORMS:
        yield from _one_of("answer_type", kind, allowed=tuple(_ANSWER_FORMS))
    elif kind == "number" and not _reads_as_number(row["answer"]):
        yield f"answer is {_shown(row['answer'])}, expected a number as answer_type says"
    elif kind == "choice" and row.get("choices") is not None:
        yield from _one_of("answer", row["answer"], allowed=tuple(row["choices"]))
    elif kind == "python_tests" and not ("setup" in row or {"prefix", "entry_point"} <= row.keys()):
        yield "missing key 'setup', or 'prefix' with 'entry_point'"
    elif kind == "constraints" and len(row["kwargs"]) != len(row["instruction_id_list"]):
        yield (
            f"kwargs has {len(row['kwargs'])} entries, expected one for each of the "
            f"{len(row['instruction_id_list'])} in instruction_id_list"
        )


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text.replace(",", "")))
    except ValueError:
        return False


def _labelled_rule(row: Row) -> Iterator[str]:
    if all(row.get(key) is None for key in ("label", "score", "emotions")):
        yield "missing key 'label', 'score' or 'emotions'"


def _eval_rule(row: Row) -> Iterator[str]:
    form = _form(row, Schema.EVAL)
    if form is _SENTENCE_PAIR and normalize(row["sent_more"]) == normalize(row["sent_less"]):
        yield "sent_more and sent_less are the same text"
    if form is _CHOICE:
        yield from _one_of("answer", row["answer"], allowed=tuple(row["choices"]))


_RULES: Mapping[Schema, Callable[[Row], Iterator[str]]] = {
    Schema.SFT: _no_rule,
    Schema.PREFERENCE: _preference_rule,
    Schema.PROMPTS: _prompt_rule,
    Schema.SAMPLES: _prompt_rule,
    Schema.VERIFIABLE: _verifiable_rule,
    Schema.LABELLED: _labelled_rule,
    Schema.TEXT: _no_rule,
    Schema.EVAL: _eval_rule,
}
