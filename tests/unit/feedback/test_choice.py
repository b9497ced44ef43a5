"""Which pairs are asked about: scores worked out by hand, choices against brute force."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.feedback.choice import (
    STRATEGIES,
    Candidate,
    choose,
    conflict,
    disagreement,
    doubt,
    length_stratum,
    quotas,
)
from tutelage.records import Comparison, Message, Prompt


def candidate(name: str, prompt: str = "", category: str = "", **known) -> Candidate:
    asked = Prompt(prompt or name, (Message("user", "?"),), category=category)
    return Candidate(Comparison(asked, "a", "b", name), **known)


def names(chosen) -> list[str]:
    return [row.candidate.comparison.id for row in chosen]


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        ((1.0, 3.0), 1.0),  # mean 2, both 1 away
        ((1.0, 2.0, 6.0), 14 / 3),  # mean 3: (4 + 1 + 9) / 3
        ((2.0, 2.0, 2.0), 0.0),
        ((5.0,), 0.0),
        ((), 0.0),
    ],
)
def test_disagreement_is_the_variance_of_the_margins(margins, expected):
    assert disagreement(margins) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("p_a", "orders", "expected"),
    [
        (0.5, None, 1.0),
        (0.75, None, 0.5),
        (0.25, None, 0.5),
        (1.0, None, 0.0),
        (0.75, (0.9, 0.6), 0.5),  # both orders prefer a
        (0.65, (0.9, 0.4), 1.0),  # whichever comes first wins
        (0.7, (0.9, 0.5), 0.6),  # undecided in one order is no contradiction
    ],
)
def test_doubt_is_nearness_to_a_half_and_whole_where_orders_contradict(p_a, orders, expected):
    assert doubt(p_a, orders) == pytest.approx(expected)


def test_conflict_has_the_sign_of_the_contradiction():
    # sigma(log 3) = 3/4, so the models are sure by 2 * 3/4 - 1 = 1/2.
    margins = (math.log(3) - 1, math.log(3) + 1)
    assert conflict(0.0, margins) == pytest.approx(0.5)
    assert conflict(1.0, margins) == pytest.approx(-0.5)
    assert conflict(0.25, margins) == pytest.approx(0.25)
    assert conflict(0.5, margins) == 0.0


@given(
    p_a=st.floats(0, 1),
    orders=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    margins=st.lists(st.floats(-20, 20), min_size=1, max_size=5),
)
def test_scores_do_not_depend_on_which_answer_comes_first(p_a, orders, margins):
    swapped = [-margin for margin in margins]
    other = orders and (1 - orders[1], 1 - orders[0])
    # The complement of a number next to a half may round to a half.
    if orders is None or all(abs(p - 0.5) > 1e-9 for p in orders):
        assert doubt(1 - p_a, other) == pytest.approx(doubt(p_a, orders))
    assert conflict(1 - p_a, swapped) == pytest.approx(conflict(p_a, margins))
    assert disagreement(swapped) == pytest.approx(disagreement(margins))


@pytest.mark.parametrize(
    ("lengths", "stratum"),
    [((9, 10), 0), ((10, 8), 1), ((10, 7), 2), ((4, 10), 3), ((0, 5), 3), ((0, 0), 0)],
)
def test_length_strata_are_shares_of_the_longer_text(lengths, stratum):
    assert length_stratum(lengths) == length_stratum(lengths[::-1]) == stratum


@pytest.mark.parametrize(
    ("shares", "count", "expected"),
    [
        ({"random": 1.0}, 7, {"random": 7}),
        ({"random": 0.2, "doubt": 0.4, "length": 0.4}, 10, {"random": 2, "doubt": 4, "length": 4}),
        # 10/3 each: one place is left, which goes to the first.
        ({"doubt": 1.0, "random": 1.0, "length": 1.0}, 10, {"random": 4, "doubt": 3, "length": 3}),
        # 1.4 and 5.6: the larger remainder gets the place.
        ({"random": 0.2, "doubt": 0.8}, 7, {"random": 1, "doubt": 6}),
        ({"random": 0.1, "doubt": 0.9}, 1, {"doubt": 1}),
        ({"random": 1.0}, 0, {}),
    ],
)  # fmt: skip
def test_quotas_worked_out_by_hand(shares, count, expected):
    assert quotas(shares, count) == expected


@given(
    shares=st.dictionaries(st.sampled_from(STRATEGIES), st.floats(0.01, 5), min_size=1),
    count=st.integers(0, 500),
)
def test_quotas_add_up_and_stay_within_one_of_their_share(shares, count):
    found = quotas(shares, count)
    assert sum(found.values()) == count
    for name in STRATEGIES:
        exact = count * shares.get(name, 0.0) / sum(shares.values())
        assert abs(found.get(name, 0) - exact) < 1 + 1e-6  # floats


def test_no_share_at_all_is_an_error():
    with pytest.raises(DataError, match="no strategy has a share above 0"):
        quotas({"random": 0.0}, 5)


POOL = [
    candidate("agree", margins=(2.0, 2.0), p_a=1.0, category="billing"),
    candidate("differ", margins=(3.0, -3.0), p_a=0.9, category="billing"),
    candidate("unsure", margins=(1.0, 1.2), p_a=0.5, category="safety"),
    candidate("against", margins=(4.0, 4.1), p_a=0.0, category="safety"),
    candidate("torn", margins=(0.5, -0.5), p_a=0.6, orders=(0.9, 0.3), category="billing"),
]


def test_disagreement_takes_the_largest_variances():
    assert names(choose(POOL, 2, {"disagreement": 1.0})) == ["differ", "torn"]


def test_conflict_takes_what_judge_and_models_contradict_each_other_about():
    # against: tanh(2.0) = 0.96; the judge of `unsure` prefers nothing, and others agree with it.
    assert names(choose(POOL[:4], 1, {"conflict": 1.0})) == ["against"]
    assert names(choose(POOL[:4], 4, {"conflict": 1.0}))[-1] == "agree"


def test_doubt_takes_what_the_judge_cannot_tell():
    assert set(names(choose(POOL, 2, {"doubt": 1.0}))) == {"unsure", "torn"}


def test_a_category_is_chosen_from_at_random():
    chosen = choose(POOL, 5, {"category": 1.0}, categories=["safety"])
    assert set(names(chosen)) == {"unsure", "against"}
    firsts = {
        names(choose(POOL, 1, {"category": 1.0}, categories=["safety"], seed=seed))[0]
        for seed in range(20)
    }
    assert firsts == {"unsure", "against"}


def test_what_a_strategy_cannot_fill_goes_to_those_after_it():
    chosen = choose(POOL, 4, {"category": 0.75, "disagreement": 0.25}, categories=["safety"])
    assert Counter(row.reason for row in chosen) == {"category": 2, "disagreement": 2}
    assert names(chosen)[2:] == ["differ", "torn"]


def test_strategies_pass_over_candidates_without_their_numbers():
    pool = [candidate("plain"), candidate("alone", margins=(9.0,)), *POOL]
    assert names(choose(pool, 1, {"disagreement": 1.0})) == ["differ"]
    assert "plain" not in names(choose(pool, 7, {"doubt": 1.0}))
    assert names(choose([candidate("plain")], 1, {"conflict": 1.0})) == []


def test_each_candidate_is_chosen_once_with_one_reason():
    shares = {"random": 0.2, "doubt": 0.3, "disagreement": 0.3, "length": 0.2}
    chosen = choose(POOL, 5, shares)
    assert sorted(names(chosen)) == sorted(row.comparison.id for row in POOL)
    reasons = [row.reason for row in chosen]
    assert reasons == sorted(reasons, key=STRATEGIES.index)


def test_a_prompt_takes_no_more_than_its_number_of_places():
    pool = [
        candidate(f"{prompt}/{i}", prompt, margins=(float(i + 10 * (prompt == "p")), 0.0))
        for prompt in ("p", "q")
        for i in range(4)
    ]
    assert names(choose(pool, 3, {"disagreement": 1.0})) == ["p/3", "p/2", "p/1"]
    capped = choose(pool, 4, {"random": 0.5, "disagreement": 0.5}, per_prompt=1)
    assert sorted(name[0] for name in names(capped)) == ["p", "q"]


def test_length_takes_every_stratum_equally_often():
    shapes = [(10, 10)] * 30 + [(10, 8)] * 20 + [(10, 7)] * 8 + [(10, 2)] * 3
    pool = [candidate(f"{i:02}", lengths=shape) for i, shape in enumerate(shapes)]
    chosen = choose(pool, 12, {"length": 1.0})
    assert Counter(length_stratum(row.candidate.lengths) for row in chosen) == dict.fromkeys(
        range(4), 3
    )
    # The rarest stratum is used up; the others share what is left.
    more = Counter(
        length_stratum(row.candidate.lengths) for row in choose(pool, 18, {"length": 1.0})
    )
    assert (more[3], sum(more.values())) == (3, 18)
    assert {more[0], more[1], more[2]} == {5}


def test_order_of_candidates_makes_no_difference_and_the_seed_does():
    shares = {"random": 0.5, "doubt": 0.5}
    pool = [candidate(f"{i}", p_a=0.5) for i in range(30)]
    first = names(choose(pool, 8, shares, seed=1))
    assert names(choose(reversed(pool), 8, shares, seed=1)) == first
    assert names(choose(pool, 8, shares, seed=2)) != first


def test_the_random_part_is_a_sample_of_the_whole_pool_whatever_else_is_chosen():
    """Every candidate has the same chance, also those that another strategy would take."""
    pool = [candidate(f"{i}", p_a=i / 9) for i in range(10)]
    drawn = Counter(
        row.candidate.comparison.id
        for seed in range(600)
        for row in choose(pool, 4, {"random": 0.5, "doubt": 0.5}, seed=seed)
        if row.reason == "random"
    )
    # 600 draws of 2 in 10: 120 each, standard deviation 10; the bounds are 5 of them.
    assert set(drawn) == {f"{i}" for i in range(10)}
    assert all(70 < count < 170 for count in drawn.values())


def test_a_candidate_knows_its_category():
    assert POOL[0].category == "billing"
    assert replace(POOL[0], margins=()).category == "billing"
