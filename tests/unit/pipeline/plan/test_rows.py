import gzip
import json

import pytest

from tutelage.config import Recipe
from tutelage.pipeline.plan.recipe import recipe_references
from tutelage.pipeline.plan.rows import Rows, characters_per_token, rows_of
from tutelage.worlds.helpdesk import WorldSpec, demonstrations


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def written(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


def found(reference, default="rows.jsonl", **stages):
    recipe = Recipe.model_validate({"name": "x", "stages": stages or {"w": {"kind": "helpdesk"}}})
    return rows_of(recipe, recipe_references(recipe), [reference], default)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_file_tells_how_many_rows_it_has_and_how_long_they_are(tmp_path, name):
    row = {"id": "0", "messages": [*asked("a" * 30), {"role": "assistant", "content": "b" * 12}]}
    rows = found(written(tmp_path / name, [row] * 500))
    assert (rows.count, rows.prompt, rows.answer) == (500, 30.0, 12.0)


@pytest.mark.parametrize(
    ("row", "prompt", "answer", "answers"),
    [
        ({"prompt": asked("abc")}, 3.0, None, 1.0),
        ({"prompt": "abcd", "chosen": "a", "rejected": "bcd"}, 4.0, 2.0, 2.0),
        ({"prompt": asked("abc"), "completions": ["a", {"text": "bcd"}, "ab"]}, 3.0, 2.0, 3.0),
        ({"text": "abcde"}, 0.0, 5.0, 1.0),
    ],
)
def test_rows_of_every_schema_are_measured(tmp_path, row, prompt, answer, answers):
    rows = found(written(tmp_path / "rows.jsonl", [{"id": "0", **row}] * 3))
    assert (rows.prompt, rows.answer, rows.answers) == (prompt, answer, answers)


def test_world_that_is_not_written_yet_is_sampled():
    rows = found("w/sft.jsonl", w={"kind": "helpdesk", "demonstrations": 77})
    told = [row.messages[-1].content for row in demonstrations(WorldSpec.nano(), 200, 0)]
    assert rows.count == 77
    assert rows.answer == pytest.approx(sum(map(len, told)) / 200)
    assert found("w/rl.jsonl", w={"kind": "helpdesk", "rl_prompts": 9}).count == 9
    assert found("w/documents.jsonl").has_facts


def test_comparisons_follow_from_the_samples_they_are_made_of():
    stages = {
        "w": {"kind": "helpdesk", "train_prompts": 100},
        "sft": {"kind": "sft", "model": "m", "data": ["w/sft.jsonl"]},
        "samples": {
            "kind": "sample",
            "model": "sft",
            "prompts": "w/train.jsonl",
            "sampling": {"samples_per_prompt": 4},
        },
        "all": {"kind": "label", "samples": "samples", "annotator": "judge", "pairs_per_prompt": 9},
        "one": {"kind": "label", "samples": "samples", "annotator": "people", "limit": 30},
    }
    every, few = found("all", **stages), found("one", **stages)
    # Four answers make six pairs; one pair needs two of them.
    assert (every.count, every.pairs, every.answers) == (600, 6.0, 4.0)
    assert (few.count, few.pairs, few.answers) == (30, 1.0, 2.0)
    # The model that answers was trained to answer as the demonstrations do.
    assert every.answer == found("w/sft.jsonl").answer


def test_chosen_comparisons_are_as_many_as_the_budget_pays_for():
    stages = {
        "w": {"kind": "helpdesk", "train_prompts": 100},
        "sft": {"kind": "sft", "model": "m", "data": ["w/sft.jsonl"]},
        "samples": {"kind": "sample", "model": "sft", "prompts": "w/train.jsonl"},
        "judge": {"kind": "label", "samples": "samples", "annotator": "judge"},
        "asked": {"kind": "choose", "samples": ["samples"], "judged": ["judge"], "budget": 100},
        "people": {"kind": "label", "comparisons": "asked", "annotator": "people"},
        "bulk": {"kind": "label", "comparisons": "asked", "annotator": "judge", "limit": 20},
        "page": {"kind": "label", "comparisons": "asked", "feedback": "humans"},
        "model": {
            "kind": "label",
            "comparisons": "asked",
            "feedback": "judge",
            "judge": "judge.yaml",
        },
    }
    # Half of 100 units pays for four people at 11; 56 units are left.
    assert found("people", **stages).count == 4
    assert found("asked/judge.jsonl", **stages).count == 56
    assert found("bulk", **stages).count == 20
    assert (found("page", **stages).count, found("model", **stages).count) == (4, 56)
    assert found("asked/answered.jsonl", **stages) == found("judge", **stages)
    assert found("people", **stages).answer == found("w/sft.jsonl").answer


def test_parts_of_a_split_have_their_share_of_the_rows(tmp_path):
    data = written(tmp_path / "rows.jsonl", [{"id": "0", "text": "abc"}] * 50)
    parts = {"kind": "split", "data": [data], "parts": {"rl": 0.2, "test": 0.1}}
    assert found("parts/rl.jsonl", parts=parts) == Rows(10, 0.0, 3.0)


def test_nothing_is_known_of_what_does_not_exist():
    assert found("no/such.jsonl") is None


def test_larger_vocabularies_need_fewer_tokens():
    assert characters_per_token(1024) < characters_per_token(50_000)
