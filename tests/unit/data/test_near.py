"""Near-duplicates: what the estimate estimates, and what is found by it among many."""

import random

import pytest

from tutelage.data import validate
from tutelage.data.jsonl import write_jsonl
from tutelage.data.near import NearDuplicates
from tutelage.errors import DataError


def words(count: int, seed: int) -> list[str]:
    source = random.Random(seed)
    return ["".join(source.choices("abcdefghij", k=6)) for _ in range(count)]


def jaccard(a: str, b: str) -> float:
    """By definition, on the sets of runs of five words."""
    runs = [
        {tuple(text.split()[at : at + 5]) for at in range(len(text.split()) - 4)} for text in (a, b)
    ]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def changed(text: list[str], places: list[int]) -> str:
    return " ".join("other" if i in places else word for i, word in enumerate(text))


@pytest.mark.parametrize("places", [[50], [20, 70], [10, 40, 80], [199]])
def test_similarity_is_the_share_of_runs_in_common(places):
    text = words(200, seed=len(places))
    near = NearDuplicates(0.3)
    near.add(" ".join(text), 1)
    near.add(changed(text, places), 2)
    ((place, earlier, similarity),) = near.found()
    assert (place, earlier) == (2, 1)
    exact = jaccard(" ".join(text), changed(text, places))
    # Four standard errors of 64 draws.
    assert similarity == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 64) ** 0.5)


def test_exactly_the_planted_ones_are_found_among_many():
    near = NearDuplicates(0.75)
    texts = [words(60, seed) for seed in range(400)]
    for place, text in enumerate(texts):
        near.add(" ".join(text), place)
    # One changed word at the end costs one run in 56, in the middle five.
    for place, (number, at) in enumerate([(17, 59), (250, 30), (399, 0)], start=1000):
        near.add(changed(texts[number], [at]), place)
    assert [(it.place, it.earlier) for it in near.found()] == [(1000, 17), (1001, 250), (1002, 399)]


def test_case_punctuation_and_white_space_make_no_difference():
    near = NearDuplicates(1.0)
    near.add("Your bill is due on May the 3rd.", 1)
    near.add("your BILL is due,  on may the 3rd", 2)
    assert near.found() == [(2, 1, 1.0)]


@pytest.mark.parametrize(("a", "b"), [("yes", "no"), ("", ""), ("?", "!"), ("your bill", "bill")])
def test_short_texts_resemble_only_themselves(a, b):
    near = NearDuplicates(0.1)
    near.add(a, 1)
    near.add(b, 2)
    assert near.found() == []


def test_known_texts_are_what_the_others_are_compared_with():
    text = words(50, seed=1)
    near = NearDuplicates(0.7)
    for place, end in enumerate(("x", "y", "z", "u")):
        near.add(" ".join([*text, end]), place)
    assert {it.place for it in near.found()} == {1, 2, 3}
    assert {(it.place, it.earlier) for it in near.found(known=2)} <= {
        (2, 0),
        (2, 1),
        (3, 0),
        (3, 1),
    }
    assert {it.place for it in near.found(known=2)} == {2, 3}


def test_validate_counts_and_names_what_is_nearly_the_same(tmp_path):
    text = words(40, seed=5)
    prompt = [{"role": "user", "content": " ".join(text)}]
    close = [{"role": "user", "content": changed(text, [39])}]
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    write_jsonl(test, [{"id": "t", "prompt": prompt}])
    rows = [
        {"id": "a", "prompt": [{"role": "user", "content": " ".join(words(40, seed=6))}]},
        {"id": "b", "prompt": close},
        {"id": "c", "prompt": close},
        {"id": "d", "prompt": [{"role": "user", "content": changed(text, [39, 38])}]},
    ]
    write_jsonl(train, rows)
    report = validate([train], against=[test], near=0.8)
    (file,) = report.files
    assert report.ok
    assert (file.duplicates, file.near_duplicates, file.near_leaks) == (1, 1, 3)
    said = [str(warning) for warning in report.warnings]
    assert said[0].startswith(f"{train}:4: is nearly line 2, about ")
    assert said[1].startswith(f"{train}:2: its prompt is nearly {test}:1, about ")
    assert (len(said), file.warnings) == (4, 4)
    plain = validate([train], against=[test])
    assert (plain.warnings, plain.files[0].near_duplicates) == ([], None)


def test_a_prompt_that_leaks_word_for_word_is_no_near_leak(tmp_path):
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    row = {"id": "a", "prompt": [{"role": "user", "content": " ".join(words(20, seed=1))}]}
    write_jsonl(test, [row])
    write_jsonl(train, [row])
    (file,) = validate([train], against=[test], near=0.8).files
    assert (file.leaks, file.near_leaks) == (1, 0)


@pytest.mark.parametrize("near", [0.0, 1.5, float("nan")])
def test_a_similarity_that_is_no_share_is_refused(near):
    with pytest.raises(DataError, match="expected a share above 0"):
        validate([], near=near)
