"""Pairs of answers: which tokens are compared, what is left out, how batches are cut."""

from tutelage.records import Comparison, Message, Preference, Prompt
from tutelage.trainers.pairs import AnswerPair, PairBatch, encode_preferences


def pair_of(first: int, second: int) -> AnswerPair:
    """Answers of so many tokens."""
    a, b = (((5,) * length, (0.0,) + (1.0,) * (length - 1)) for length in (first, second))
    return AnswerPair(a, b, 1.0)


def test_answers_of_a_pair_are_cut_off_together():
    """The budget counts both rows with their padding."""
    pairs = [pair_of(6, 5), pair_of(3, 7), pair_of(5, 5)]
    batch = PairBatch(pairs)
    assert batch.row_lengths == [12, 14, 10]
    assert batch.denominator == 3
    assert batch.select([2, 0]).pairs == [pairs[2], pairs[0]]


def prefer(a: str, b: str, *turns: Message, p_a: float = 1.0, mode: str = "chat") -> Preference:
    prompt = Prompt("p", turns or (Message("user", "hi"),), mode=mode)
    return Preference(Comparison(prompt, a, b), p_a, "somebody")


def written(tokenizer, answer) -> str:
    ids, weights = answer
    return tokenizer.decode([i for i, weight in zip(ids, weights, strict=True) if weight])


def test_the_last_answer_alone_is_compared(tiny_tokenizer):
    turns = (Message("user", "hi"), Message("assistant", "yo."), Message("user", "so?"))
    encoded = encode_preferences(tiny_tokenizer, [prefer("well.", "no.", *turns, p_a=0.3)], 100)
    (pair,) = encoded.pairs
    assert written(tiny_tokenizer, pair.a) == "well.<eos>"
    assert written(tiny_tokenizer, pair.b) == "no.<eos>"
    assert tiny_tokenizer.decode(pair.a[0]).count("yo.") == 1
    assert (pair.p_a, pair.reference) == (0.3, (0.0, 0.0))


def test_continuation_goes_on_where_the_text_stops(tiny_tokenizer):
    row = prefer(" b", " cd", Message("user", "a"), mode="continuation")
    (pair,) = encode_preferences(tiny_tokenizer, [row], 100).pairs
    assert tiny_tokenizer.decode(pair.b[0]) == "a cd<eos>"
    assert written(tiny_tokenizer, pair.b) == " cd<eos>"


def test_pairs_without_a_lesson_are_left_out_and_counted(tiny_tokenizer):
    """The tokenizer knows no capitals, so "Yes" and "yes" are the same tokens."""
    rows = [prefer("yes", "no"), prefer("Yes", "yes"), prefer("no", "much too long" * 5)]
    encoded = encode_preferences(tiny_tokenizer, rows, 20)
    assert [written(tiny_tokenizer, pair.a) for pair in encoded.pairs] == ["yes<eos>"]
    assert (encoded.num_too_long, encoded.num_equal) == (1, 1)


def test_empty_answer_is_an_answer(tiny_tokenizer):
    (pair,) = encode_preferences(tiny_tokenizer, [prefer("", "no")], 100).pairs
    assert written(tiny_tokenizer, pair.a) == "<eos>"
