"""Records out of files, and the errors of files that hold none."""

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import (
    LabelledText,
    Samples,
    load_demonstrations,
    load_labelled,
    load_preferences,
    load_prompts,
    load_samples,
    load_texts,
)
from tutelage.errors import DataError
from tutelage.records import Comparison, Demonstration, Message, Preference, Prompt

USER = {"role": "user", "content": "Two and two?"}
ASSISTANT = {"role": "assistant", "content": "Four."}
ASKED = (Message("user", "Two and two?"),)
CHOSEN = {"prompt": [USER], "chosen": "Four.", "rejected": "Five."}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    write_jsonl(path, ({"id": f"r{i}", **row} for i, row in enumerate(rows)))
    return path


def test_prompts_keep_what_their_rows_say(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"prompt": [USER], "category": "sums", "source": "made", "expected": "comply"},
        {"prompt": [USER], "mode": "continuation", "reference": ["Four.", "Eight."]},
    )
    assert load_prompts(path) == [
        Prompt("r0", ASKED, source="made", category="sums"),
        Prompt("r1", ASKED, reference="Four.", mode="continuation"),
    ]


def test_the_answer_of_a_verifiable_row_is_its_reference(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": [USER], "answer_type": "number", "answer": "4"})
    assert load_prompts(path) == [Prompt("r0", ASKED, reference="4")]


def test_prompts_of_preferences_come_once_each(tmp_path: Path) -> None:
    judged = [
        Preference(Comparison(Prompt(prompt, ASKED), "a", b, f"{prompt}/{b}"), 1.0, "judge")
        for prompt, b in (("p", "b"), ("p", "c"), ("q", "b"))
    ]
    path = tmp_path / "judged.jsonl"
    write_jsonl(path, (preference.to_json() for preference in judged))
    assert [prompt.id for prompt in load_prompts(path)] == ["p", "q"]
    assert [prompt.id for prompt in load_prompts(path, limit=1)] == ["p"]


def test_demonstrations_come_from_conversations_and_from_better_texts(tmp_path: Path) -> None:
    target = Demonstration("r0", (*ASKED, Message("assistant", "Four.")), "made", "sums")
    more = {"source": "made", "category": "sums"}
    conversation = written(tmp_path, {"messages": [USER, ASSISTANT], **more})
    assert load_demonstrations(conversation) == [target]
    assert load_demonstrations(written(tmp_path, {**CHOSEN, **more})) == [target]


def test_a_judged_pair_gives_its_better_text_and_a_tie_none(tmp_path: Path) -> None:
    judged = {"prompt": [USER], "a": "Five.", "b": "Four.", "annotator": "me"}
    path = written(tmp_path, {**judged, "p_a": 0.5}, {**judged, "p_a": 0.1}, {**judged, "p_a": 1})
    targets = [demonstration.messages[-1].content for demonstration in load_demonstrations(path)]
    assert targets == ["Four.", "Five."]


def test_chosen_is_preferred_with_certainty_and_its_annotator_is_known(tmp_path: Path) -> None:
    path = written(tmp_path, {**CHOSEN, "feedback": "ai:gpt-4"}, CHOSEN)
    first, second = load_preferences(path)
    assert (first.comparison.a, first.comparison.b, first.p_a) == ("Four.", "Five.", 1.0)
    assert (first.kind, first.annotator, second.kind) == ("ai", "ai:gpt-4", "human")


def test_our_own_preferences_come_back_as_they_were(tmp_path: Path) -> None:
    preference = Preference(
        Comparison(Prompt("p", ASKED, "made", "sums", "Four."), "Four.", "Five.", "p/0-1"),
        0.75,
        "judge-1",
        "ai",
        "the sum is right",
        1.5,
        "2024-05-01T12:00:00Z",
        2,
    )
    path = tmp_path / "own.jsonl"
    write_jsonl(path, [preference.to_json()])
    assert load_preferences(path) == [preference]


def test_null_stands_for_an_absent_field(tmp_path: Path) -> None:
    judged = {"prompt": [USER], "a": "4", "b": "5", "annotator": "me", "p_a": 1}
    nulls = dict.fromkeys(["kind", "round", "rationale", "seconds", "created", "source"])
    (preference,) = load_preferences(written(tmp_path, {**judged, **nulls}))
    assert (preference.kind, preference.round, preference.rationale) == ("human", 0, "")


def test_samples_are_texts_or_completions(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"prompt": [USER], "completions": ["Four.", {"text": "", "tokens": []}]},
        {"prompt": [USER], "completions": [{"text": "Fo", "tokens": [3], "stop": "length"}]},
    )
    assert load_samples(path) == [
        Samples(Prompt("r0", ASKED), ("Four.", ""), (False, False)),
        Samples(Prompt("r1", ASKED), ("Fo",), (True,)),
    ]


def test_texts_come_with_and_without_labels(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"text": "good", "label": 1, "source": "films"},
        {"text": "so so", "score": -0.5, "emotions": ["neutral"]},
    )
    assert load_texts(path) == ["good", "so so"]
    assert load_texts(path, limit=1) == ["good"]
    assert load_labelled(path) == [
        LabelledText("r0", "good", label=1, source="films"),
        LabelledText("r1", "so so", score=-0.5, emotions=("neutral",)),
    ]


def test_up_to_five_faults_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"id": f"{i}", "text": ""}) for i in range(9)))
    with pytest.raises(DataError) as caught:
        load_texts(path)
    lines = str(caught.value).splitlines()
    assert "`tutelage validate` lists all faults" in lines[0]
    assert lines[1:] == [f"  {path}:{i}: text is empty" for i in range(1, 6)]


def test_a_fault_after_good_rows_still_gives_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, {"text": "good"}, {"text": "good too"}, {"text": None})
    with pytest.raises(DataError, match=r"rows\.jsonl:3: text is null"):
        load_texts(path)


def test_rows_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = [json.dumps({"id": f"{i}", "text": "fine"}) for i in range(30)]
    path.write_text("\n".join([*good, "not json"]))
    assert len(load_texts(path, limit=30)) == 30


def test_a_file_of_another_schema_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, {"text": "good"})
    with pytest.raises(DataError, match=r"rows\.jsonl holds rows of schema text, expected sft or"):
        load_demonstrations(path)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_prompts(tmp_path / "none.jsonl")


def test_a_file_of_ties_has_nothing_to_imitate(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": [USER], "a": "4", "b": "5", "annotator": "me", "p_a": 0.5})
    with pytest.raises(DataError, match="none that can be used"):
        load_demonstrations(path)
