"""Labels: who is asked about which comparisons."""

import pytest
from pydantic import ValidationError

from tutelage.config import LabelStage
from tutelage.data.loaders import load_preferences
from tutelage.errors import DataError
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
