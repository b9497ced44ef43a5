import pytest

from tutelage.evaluation.lexicon import LexiconRater, distinct_pairs, stock_phrases
from tutelage.evaluation.rater import Answer
from tutelage.records import Message, Prompt

pytest.importorskip("vaderSentiment")


@pytest.fixture(scope="module")
def rater():
    return LexiconRater()


def rate(rater, *texts, prompt="the film is"):
    prompts = [
        Prompt(str(i), (Message("user", prompt),), mode="continuation") for i in range(len(texts))
    ]
    return rater.rate(prompts, [Answer(text, ended=True) for text in texts])


def test_published_examples_get_their_published_scores(rater):
    # From the VADER repository's README, rounded there to four decimals.
    ratings = rate(
        rater,
        "VADER is smart, handsome, and funny.",
        "VADER is not smart, handsome, nor funny.",
        "Today SUX!",
        "The book was good.",
        "At least it isn't a horrible book.",
    )
    assert ratings["compound"] == [0.8316, -0.7424, -0.5461, 0.4404, 0.431]
    assert ratings["positive"] == [1.0, 0.0, 0.0, 1.0, 1.0]
    assert ratings["negative"] == [0.0, 1.0, 1.0, 0.0, 0.0]


def test_text_without_sentiment_is_neither_positive_nor_negative(rater):
    ratings = rate(rater, "the table is brown", "")
    assert ratings["compound"] == [0.0, 0.0]
    assert ratings["positive"] == ratings["negative"] == [0.0, 0.0]


def test_only_the_continuation_is_rated(rater):
    assert rate(rater, " brown", prompt="a wonderful happy film") == rate(rater, " brown")


def test_every_measure_has_a_rating_for_every_answer(rater):
    ratings = rate(rater, "a good one", "a bad one")
    assert [measure.key for measure in rater.measures] == list(ratings)
    assert {len(column) for column in ratings.values()} == {2}


def test_distinct_pairs_by_hand():
    assert distinct_pairs("a b a b a") == pytest.approx(2 / 4)
    assert distinct_pairs("a b c d") == 1.0
    assert distinct_pairs("Good good GOOD") == pytest.approx(1 / 2)
    assert distinct_pairs("one") is None


def test_stock_phrases_by_hand():
    texts = ["a b c d", "x a b c", "p q r", "two words"]
    # (a b c) is in the first two; (b c d), (x a b) and (p q r) are in one.
    assert stock_phrases(["1", "2", "3", "4"], texts) == [0.5, 0.5, 0.0, None]


def test_a_policy_that_says_the_same_to_all_is_all_stock_phrases():
    assert stock_phrases(["1", "2", "3"], ["a great great film"] * 3) == [1.0, 1.0, 1.0]


def test_answers_to_the_same_prompt_do_not_make_a_phrase_stock():
    assert stock_phrases(["1", "1"], ["a b c d", "a b c d"]) == [0.0, 0.0]
