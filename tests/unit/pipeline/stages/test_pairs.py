import json
from collections import Counter

import pytest

from tutelage.config import PairsStage
from tutelage.data.loaders import load_labelled, load_preferences
from tutelage.errors import DataError
from tutelage.pipeline.stages.pairs import run


def labelled(texts):
    return [
        {"id": f"row-{i}", "text": text, "label": label, "source": "reviews"}
        for i, (text, label) in enumerate(texts)
    ]


@pytest.fixture
def build(write_rows, context):
    """Runs the stage on (text, label) rows; returns its folder and metrics."""

    def go(texts, *, seed=0, **settings):
        place = context(seed)
        reference = write_rows("labelled.jsonl", labelled(texts))
        metrics = run(PairsStage(data=(reference,), **settings), place)
        return place.folder, metrics

    return go


SIX = [
    ("a fine film", 1),
    ("a dull film", 0),
    ("the plot sings", 1),
    ("the plot sags", 0),
    ("it works", 1),
    ("this fails", 0),
]


def test_only_texts_that_begin_alike_are_paired(build, read_rows):
    folder, metrics = build(SIX, count=2)
    rows = read_rows(folder / "preferences.jsonl")
    told = {(row["prompt"][0]["content"], row["a"], row["b"], row["p_a"]) for row in rows}
    assert told == {
        ("a", " fine film", " dull film", 1.0),
        ("the", " plot sings", " plot sags", 1.0),
    }
    assert metrics["preferences"] == 2.0


def test_prompt_and_answer_together_are_the_labelled_text(build):
    folder, _ = build(SIX, count=2)
    truth = dict(SIX)
    for preference in load_preferences(folder / "preferences.jsonl"):
        comparison = preference.comparison
        assert comparison.prompt.mode == "continuation"
        assert truth[comparison.prompt.text + comparison.a] == 1
        assert truth[comparison.prompt.text + comparison.b] == 0


def test_texts_without_a_partner_are_kept_for_other_uses(build):
    folder, metrics = build(SIX, count=2)
    left = load_labelled(folder / "unpaired.jsonl")
    assert {text.text for text in left} == {"it works", "this fails"}
    assert metrics["unpaired"] == 2.0


def test_texts_beyond_the_count_are_left_unpaired(build):
    folder, _ = build(SIX, count=1)
    paired = load_preferences(folder / "preferences.jsonl")
    assert len(paired) == 1
    assert len(load_labelled(folder / "unpaired.jsonl")) == 4


def test_no_text_is_in_two_pairs(build, read_rows):
    texts = [(f"a {word} film", i % 2) for i, word in enumerate("bcdefghijklmnopqrst")]
    folder, _ = build(texts, count=9)
    rows = read_rows(folder / "preferences.jsonl")
    used = Counter(row["prompt"][0]["content"] + row[side] for row in rows for side in "ab")
    assert len(used) == 18
    assert set(used.values()) == {1}


def test_a_text_that_occurs_twice_counts_once(build):
    _, metrics = build([*SIX, ("A  fine film", 1), ("a dull film", 0)], count=2)
    assert metrics["repeated"] == 2.0
    assert metrics["preferences"] == 2.0


def test_more_pairs_than_there_are_is_refused_with_the_number_there_is(build):
    with pytest.raises(DataError, match=r"6 labelled texts give 2 pairs .* set count to 2 or less"):
        build(SIX, count=3)


def test_single_words_cannot_be_continued(build):
    with pytest.raises(DataError, match="give 0 pairs"):
        build([("good", 1), ("good.", 0)], count=1)


def test_long_texts_keep_their_first_words(build, read_rows):
    folder, _ = build([("a b c d e", 1), ("a v w x y", 0)], count=1, max_words=3)
    (row,) = read_rows(folder / "preferences.jsonl")
    assert (row["a"], row["b"]) == (" b c", " v w")


@pytest.mark.parametrize("label", ["positive", 2, -1])
def test_other_labels_are_refused_with_file_and_row(build, label):
    with pytest.raises(DataError, match=r"labelled.jsonl: row 'row-0' has the label .* expected 0"):
        build([("a thing", label), ("a matter", label)], count=1)


def test_who_labelled_and_the_length_bias_are_told(build):
    folder, metrics = build(
        [("a b c", 1), ("a d", 0), ("the e", 1), ("the f g", 0), ("it h i", 1), ("it j", 0)],
        count=3,
    )
    labels = json.loads((folder / "labels.json").read_text())
    assert labels["annotators"] == {"reviews": 3}
    assert labels["prefers_longer"] == pytest.approx(2 / 3)
    assert metrics["prefers_longer"] == pytest.approx(2 / 3)


def test_seed_decides_who_meets_whom(build):
    texts = [(f"a {word} film", i % 2) for i, word in enumerate("bcdefghijklmnopqrstu")]
    first, again, other = (build(texts, count=10, seed=seed)[0] for seed in (1, 1, 2))
    name = "preferences.jsonl"
    assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / name).read_bytes() != (other / name).read_bytes()
