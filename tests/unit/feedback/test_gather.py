"""Pairs of completions, and agreement worked out by hand."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.loaders import Samples
from tutelage.errors import DataError
from tutelage.feedback.gather import agreement, pairs, pairs_of_samples, turned
from tutelage.records import Comparison, Message, Preference, Prompt

PROMPT = Prompt("p", (Message("user", "Where is my order?"),))


def texts_of(comparisons: Sequence[Comparison]) -> Counter[frozenset[str]]:
    return Counter(frozenset((comparison.a, comparison.b)) for comparison in comparisons)


def test_all_pairs_of_different_texts_are_compared_once() -> None:
    texts = ["one", "two", "three", "four"]
    pairing = pairs(PROMPT, texts)
    assert texts_of(pairing.comparisons) == Counter(map(frozenset, combinations(texts, 2)))
    assert pairing.num_identical == 0
    assert {comparison.id for comparison in pairing.comparisons} == {
        "p/0-1",
        "p/0-2",
        "p/0-3",
        "p/1-2",
        "p/1-3",
        "p/2-3",
    }
    assert all(comparison.prompt is PROMPT for comparison in pairing.comparisons)


def test_equal_texts_are_skipped_and_counted() -> None:
    pairing = pairs(PROMPT, ["one", " one\n", "two", "one"])
    assert pairing.num_identical == 3
    assert [comparison.id for comparison in pairing.comparisons] == ["p/0-2", "p/1-2", "p/2-3"]
    assert pairs(PROMPT, ["same", "same"]).comparisons == ()
    assert pairs(PROMPT, ["alone"]).comparisons == ()


def test_an_empty_completion_is_a_text_like_any_other() -> None:
    assert texts_of(pairs(PROMPT, ["", "two"]).comparisons) == {frozenset(("", "two")): 1}


@given(
    texts=st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8),
    count=st.integers(0, 30),
    seed=st.integers(0, 5),
)
def test_a_draw_is_part_of_all_pairs_and_depends_on_the_seed_alone(
    texts: list[str], count: int, seed: int
) -> None:
    every = {comparison.id for comparison in pairs(PROMPT, texts).comparisons}
    drawn = pairs(PROMPT, texts, count=count, seed=seed).comparisons
    assert {comparison.id for comparison in drawn} <= every
    assert len({comparison.id for comparison in drawn}) == len(drawn) == min(count, len(every))
    assert pairs(PROMPT, texts, count=count, seed=seed).comparisons == drawn
    assert all(comparison.a != comparison.b for comparison in drawn)


def test_seeds_and_prompts_draw_differently() -> None:
    texts = [f"text {i}" for i in range(12)]
    draws = {
        tuple(pairs(prompt, texts, count=5, seed=seed).comparisons)
        for seed in range(4)
        for prompt in (PROMPT, Prompt("q", PROMPT.messages))
    }
    assert len(draws) == 8


def test_no_place_in_the_order_of_sampling_comes_first_more_often() -> None:
    first = Counter(
        pairs(Prompt(f"{i}", PROMPT.messages), ["early", "late"]).comparisons[0].a
        for i in range(400)
    )
    # Four standard deviations of 400 fair draws: 4 * sqrt(400) / 2 = 40.
    assert abs(first["early"] - 200) < 40


def judged(verdicts: dict[str, float], annotator: str = "one") -> list[Preference]:
    return [
        Preference(Comparison(PROMPT, "left", "right", name), p_a, annotator)
        for name, p_a in verdicts.items()
    ]


def test_samples_of_all_prompts_are_paired_up() -> None:
    other = Prompt("q", (Message("user", "And mine?"),))
    samples = [Samples(PROMPT, ("one", "two")), Samples(other, ("x", "x", "y"))]
    found = pairs_of_samples(samples, seed=3)
    apart = [pairs(row.prompt, row.completions, seed=3) for row in samples]
    assert found.comparisons == apart[0].comparisons + apart[1].comparisons
    assert found.num_identical == 1


def test_samples_without_two_different_texts_are_refused() -> None:
    with pytest.raises(DataError, match="samples of 1 prompts give no pair of different"):
        pairs_of_samples([Samples(PROMPT, ("one", "one "))])


def test_agreement_and_kappa_worked_out_by_hand() -> None:
    # Cohen's kind of table, one verdict against the other:
    #            a   b  tie
    #      a     4   1   0    5
    #      b     1   2   0    3
    #      tie   0   1   1    2
    #            5   4   1   10
    table = {
        ("a", "a"): 4,
        ("a", "b"): 1,
        ("b", "a"): 1,
        ("b", "b"): 2,
        ("t", "b"): 1,
        ("t", "t"): 1,
    }
    p_a = {"a": 0.9, "b": 0.2, "t": 0.5}
    rows = [verdict for verdict, count in table.items() for _ in range(count)]
    first = judged({f"{i}": p_a[left] for i, (left, _) in enumerate(rows)})
    second = judged({f"{i}": p_a[right] for i, (_, right) in enumerate(rows)}, "two")
    result = agreement(first, second)
    # p_o = 7/10; p_e = (5*5 + 3*4 + 2*1) / 100 = 0.39; kappa = 0.31 / 0.61.
    assert result.num_comparisons == 10
    assert result.share == pytest.approx(0.7)
    assert result.kappa == pytest.approx(0.31 / 0.61)
    assert agreement(second, first).kappa == pytest.approx(0.31 / 0.61)


def test_full_agreement_is_one_and_full_disagreement_is_minus_one() -> None:
    one = judged({"x": 1.0, "y": 0.0})
    assert agreement(one, one).kappa == pytest.approx(1.0)
    assert agreement(one, judged({"x": 0.0, "y": 1.0})).kappa == pytest.approx(-1.0)


def test_kappa_is_undefined_where_both_always_say_the_same() -> None:
    constant = judged({"x": 1.0, "y": 0.8})
    result = agreement(constant, constant)
    assert result.share == 1.0
    assert math.isnan(result.kappa)


def test_only_shared_comparisons_count() -> None:
    result = agreement(judged({"x": 1.0, "y": 0.0}), judged({"y": 0.0, "z": 1.0}))
    assert (result.num_comparisons, result.share) == (1, 1.0)
    with pytest.raises(DataError, match="no comparison in common: 1 on one side, 1 on the other"):
        agreement(judged({"x": 1.0}), judged({"y": 1.0}))


def test_the_order_of_presentation_does_not_matter() -> None:
    one, other = judged({"x": 0.9, "y": 0.1, "z": 0.9}), judged({"x": 0.8, "y": 0.7, "z": 0.2})
    swapped = [preference.swap() for preference in other]
    assert agreement(one, swapped) == agreement(one, other)


def test_several_judgements_of_one_comparison_count_as_their_mean() -> None:
    crowd = [*judged({"x": 0.9}), *judged({"x": 0.3}), *judged({"x": 0.4})]
    assert agreement(crowd, judged({"x": 1.0})).share == 1.0
    split = [*judged({"x": 0.7}), *judged({"x": 0.3})]
    assert agreement(split, judged({"x": 0.5})).share == 1.0


def test_one_id_for_different_texts_is_refused() -> None:
    strange = [Preference(Comparison(PROMPT, "left", "other", "x"), 1.0, "two")]
    with pytest.raises(DataError, match="'x' has other texts on the other side"):
        agreement(judged({"x": 1.0}), strange)


def test_only_the_given_positions_are_compared() -> None:
    pairing = pairs(PROMPT, ["one", "two", "one", "four"], among=[(0, 2), (1, 2), (0, 3)])
    assert [comparison.id for comparison in pairing.comparisons] == ["p/1-2", "p/0-3"]
    assert pairing.num_identical == 1


def test_a_judgement_is_turned_to_the_order_of_another_record() -> None:
    comparison = Comparison(PROMPT, "one", "two", "c")
    judged = Preference(comparison, 0.8, "anna")
    assert turned(judged, comparison) == judged
    assert turned(judged, comparison.swap()) == judged.swap()
    with pytest.raises(DataError, match="comparison 'c' has other texts"):
        turned(judged, Comparison(PROMPT, "one", "three", "c"))
