from itertools import chain

import pytest

from tutelage.config import OpeningsStage
from tutelage.data.loaders import load_prompts
from tutelage.errors import DataError
from tutelage.pipeline.stages.openings import run

TEXTS = [f"{word} begins a text that has exactly nine words" for word in "abcdefghijklmnopqrst"]


@pytest.fixture
def build(write_rows, context):
    """Runs the stage on texts; returns the prompts for training and for the test."""

    def go(texts, *, seed=0, **settings):
        place = context(seed)
        rows = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
        settings = {"train": 12, "test": 5, **settings}
        run(OpeningsStage(data=(write_rows("texts.jsonl", rows),), **settings), place)
        return [load_prompts(place.folder / f"{name}.jsonl") for name in ("train", "test")]

    return go


def test_numbers_are_as_asked(build):
    train, test = build(TEXTS)
    assert (len(train), len(test)) == (12, 5)


def test_a_prompt_is_the_beginning_of_a_text_to_be_continued(build):
    for prompt in chain(*build(TEXTS)):
        assert prompt.mode == "continuation"
        assert any(text.startswith(prompt.text + " ") for text in TEXTS)


def test_openings_have_every_allowed_length_and_no_other(build):
    train, test = build(TEXTS, words=(2, 4))
    assert {len(prompt.text.split()) for prompt in train + test} == {2, 3, 4}


def test_training_and_test_come_from_different_texts(build):
    train, test = build(TEXTS, train=15, test=5)
    assert {p.text[0] for p in train}.isdisjoint(p.text[0] for p in test)


def test_ids_tell_all_prompts_apart(build):
    train, test = build(TEXTS)
    assert len({prompt.id for prompt in train + test}) == 17


def test_an_opening_that_occurs_in_two_texts_is_used_once(build):
    twice = [*TEXTS[:5], *(f"{text} and so on" for text in TEXTS[:5])]
    train, test = build(twice, words=(3, 3), train=4, test=1)
    assert len({prompt.text for prompt in train + test}) == 5
    with pytest.raises(DataError, match="10 texts have 5 different openings of 3 to 3 words"):
        build(twice, words=(3, 3), train=5, test=1)


def test_openings_that_differ_in_case_are_the_same(build):
    with pytest.raises(DataError, match="2 texts have 1 different"):
        build(["The film is long", "the film is short"], words=(3, 3), train=1, test=1)


def test_texts_that_end_with_the_opening_are_left_out(build):
    with pytest.raises(DataError, match="2 texts have 1 different openings"):
        build(["one two three", "four five six seven"], words=(2, 3), train=1, test=1)


def test_white_space_becomes_single_blanks(build):
    (train,), (test,) = build(["a\n b c d", "e  f\tg h"], words=(3, 3), train=1, test=1)
    assert {train.text, test.text} == {"a b c", "e f g"}


def test_words_in_the_wrong_order_are_refused(build):
    with pytest.raises(DataError, match=r"words is \[8, 3\], expected the fewest before the most"):
        build(TEXTS, words=(8, 3))


def test_seed_decides_which_texts_are_tested(build):
    first, again, other = (build(TEXTS, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
