"""Labels: who is asked about which comparisons."""

import math
from dataclasses import replace

import pytest
from pydantic import ValidationError

from tutelage.config import LabelStage
from tutelage.data.loaders import load_preferences
from tutelage.errors import DataError, JudgeError
from tutelage.judging.fake import FakeEndpoint, prefers
from tutelage.pipeline.stages import label

RECORD = "name ana; plan basic; bill $47; due may 17"
QUESTIONS = {"amount": "what is my bill this month?", "lookalike": "can you kill roaming for me?"}


@pytest.fixture
def compared(write_rows):
    """A right answer and one without a value, as comparisons that are built already."""

    def build(category: str = "amount", **changes) -> str:
        asked = {"role": "user", "content": f"{RECORD} | {QUESTIONS[category]}"}
        row = {
            "id": "p/0-1",
            "prompt_id": "p",
            "prompt": [asked],
            "category": category,
            "a": "your bill is $47 .",
            "b": "i do not know .",
            "reason": "doubt",
        }
        return write_rows("asked.jsonl", [{**row, **changes}])

    return build


def labelled(context, **settings) -> list:
    where = context()
    label.run(LabelStage(**settings), where)
    return load_preferences(where.folder / "preferences.jsonl")


def test_given_comparisons_are_judged_as_they_are(compared, context):
    (row,) = labelled(context, comparisons=compared(), annotator="people")
    assert (row.comparison.id, row.comparison.prompt.id) == ("p/0-1", "p")
    assert (row.comparison.a, row.kind) == ("your bill is $47 .", "human")


def test_the_judge_is_reversed_on_its_wrong_category_alone(compared, context):
    (right,) = labelled(context, comparisons=compared(), annotator="judge")
    (wrong,) = labelled(context, comparisons=compared(), annotator="judge", wrong_category="amount")
    (other,) = labelled(
        context, comparisons=compared(), annotator="judge", wrong_category="lookalike"
    )
    assert right.p_a > 0.9
    assert wrong.p_a == pytest.approx(1 - right.p_a)
    assert other.p_a == right.p_a


def test_a_prompt_with_one_answer_is_no_comparison(compared, context):
    with pytest.raises(DataError, match="row 'p/0-1' has no text b"):
        labelled(context, comparisons=compared(b=None), annotator="people")


@pytest.mark.parametrize("given", [{}, {"samples": "s", "comparisons": "c"}])
def test_samples_or_comparisons_are_given(given):
    with pytest.raises(ValidationError, match="set one of them"):
        LabelStage(annotator="people", **given)


def test_people_have_no_wrong_category():
    with pytest.raises(ValidationError, match="which reverses the simulated judge"):
        LabelStage(samples="s", annotator="people", wrong_category="amount")


JUDGES = """
def first(comparisons):
    return [0.9 if "bill" in each.a else 0.3 for each in comparisons]

def silent(comparisons):
    return [None] * len(comparisons)
"""


@pytest.fixture
def judges(tmp_path):
    (tmp_path / "judges.py").write_text(JUDGES)
    return str(tmp_path / "judges.py")


def test_a_function_is_asked_in_both_orders(compared, context, judges):
    asked = compared()
    (row,) = labelled(context, comparisons=asked, feedback="judge", judge=f"{judges}:first")
    assert row.orders == pytest.approx((0.9, 0.7))
    assert (row.p_a, row.kind, row.annotator) == (pytest.approx(0.8), "ai", "first")


def test_a_judge_that_cannot_tell_ends_the_stage(compared, context, judges):
    with pytest.raises(JudgeError, match=r"no verdict on 1 of 1.*max_failed_share is 0.25"):
        labelled(context, comparisons=compared(), feedback="judge", judge=f"{judges}:silent")


@pytest.fixture
def endpoint(tmp_path):
    """A judge for whom the longer answer is better, and the file that describes it."""
    pytest.importorskip("openai")
    with FakeEndpoint(prefers(len)) as made:
        made.file = tmp_path / "judge.yaml"
        made.file.write_text(f"model: fake\nurl: {made.url}\n")
        yield made


def test_a_judge_model_labels_and_its_replies_are_kept(compared, context, endpoint, tmp_path):
    stage = LabelStage(comparisons=compared(), feedback="judge", judge=str(endpoint.file))
    for _ in range(2):
        where = replace(context(), replies=tmp_path / "replies" / "label.sqlite")
        figures = label.run(stage, where)
        (row,) = load_preferences(where.folder / "preferences.jsonl")
        # The answers have 18 and 15 characters.
        assert row.p_a == pytest.approx(1 / (1 + math.exp(-3)))
        assert row.annotator.startswith("fake#")
        assert (figures["unscorable"], figures["contradictions"]) == (0.0, 0.0)
    assert len(endpoint.bodies) == 2


def test_a_budget_that_ends_says_how_to_go_on(compared, context, endpoint, tmp_path):
    endpoint.file.write_text(f"model: fake\nurl: {endpoint.url}\nmax_tokens: 10\n")
    stage = LabelStage(comparisons=compared(), feedback="judge", judge=str(endpoint.file))
    with pytest.raises(JudgeError, match=r"budget ended after 0 of 1 .*raise it in .*judge\.yaml"):
        label.run(stage, context())


@pytest.mark.parametrize(
    "given", [{"feedback": "judge"}, {"judge": "j.yaml", "annotator": "people"}]
)
def test_a_judge_is_named_where_one_is_asked(given):
    with pytest.raises(ValidationError, match="set both, feedback to 'judge' and judge to"):
        LabelStage(samples="s", **given)


def test_a_judge_has_no_annotator_of_the_simulation_beside_it():
    with pytest.raises(ValidationError, match="belongs to the simulation"):
        LabelStage(samples="s", feedback="judge", judge="j.yaml", annotator="judge")


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"feedback": "judge", "judge": "judges.py:first"}, "judge"),
        ({"feedback": "humans"}, "people"),
        ({"annotator": "judge"}, "judge"),
        ({"annotator": "people"}, "people"),
    ],
)
def test_each_is_asked_what_was_chosen_for_them(given, asked):
    assert LabelStage(comparisons="choice", **given).asked == asked


def test_the_judges_file_is_part_of_the_stage():
    stage = LabelStage(samples="s", feedback="judge", judge="judges.py:first")
    assert list(stage.files()) == [("judge", "judges.py")]
