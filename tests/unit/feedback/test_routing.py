"""Who is asked what: budgets worked out by hand, every candidate in exactly one place."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.feedback.choice import Candidate
from tutelage.feedback.routing import Costs, route
from tutelage.records import Comparison, Message, Prompt
from tutelage.worlds.helpdesk.ledger import UNIT_COSTS


def pool(prompts: int, each: int = 6, **known) -> list[Candidate]:
    """Prompts p0, p1 ...; every third is about safety."""
    return [
        Candidate(Comparison(Prompt(f"p{i:03}", (Message("user", "?"),), category=kind), "a", "b",
                             f"p{i:03}/{j}"), **known)
        for i in range(prompts)
        for kind in ["safety" if i % 3 == 0 else "billing"]
        for j in range(each)
    ]  # fmt: skip


def ids(candidates) -> list[str]:
    return [candidate.comparison.id for candidate in candidates]


def test_costs_are_those_of_the_worlds_ledger():
    assert Costs(UNIT_COSTS["human"], UNIT_COSTS["ai"]) == Costs()


def test_people_get_their_part_of_the_budget_and_the_judge_the_rest():
    """220 units, half for people: 10 labels of 11; 110 of 1 for the judge."""
    routed = route(pool(100), budget=220, people=0.5, shares={"random": 1.0})
    assert (len(routed.people), len(routed.judge), routed.units) == (10, 110, 220)
    assert len(routed.unaffordable) == 600 - 120


def test_what_does_not_pay_for_a_person_goes_to_the_judge():
    """Half of 100 pays for four people, 44 units; the judge has 56."""
    routed = route(pool(100), budget=100, people=0.5, shares={"random": 1.0})
    assert (len(routed.people), len(routed.judge), routed.units) == (4, 56, 100)


@pytest.mark.parametrize(("people", "expected"), [(1.0, (20, 0)), (0.0, (0, 220))])
def test_all_to_people_and_all_to_the_judge(people, expected):
    routed = route(pool(100), budget=220, people=people, shares={"random": 1.0})
    assert (len(routed.people), len(routed.judge)) == expected


def test_shares_of_the_budget_do_not_lose_a_place_to_rounding():
    costs = Costs(people=1, judge=1)
    routed = route(pool(100), budget=110, people=0.3, shares={"random": 1.0}, costs=costs)
    assert len(routed.people) == 33


def test_the_judge_is_never_asked_about_the_categories_of_people():
    routed = route(
        pool(12), budget=200, people=0.55, shares={"category": 1.0}, categories=["safety"]
    )
    assert {chosen.candidate.category for chosen in routed.people} == {"safety"}
    assert {candidate.category for candidate in (*routed.judge, *routed.unaffordable)} == {
        "billing"
    }
    # Four prompts of six: 24 comparisons, ten of them for people.
    assert (len(routed.people), len(routed.withheld)) == (10, 14)


def test_answers_that_are_there_are_not_paid_for_again():
    judged = pool(10, p_a=0.5)
    routed = route(judged, budget=110, people=1.0, shares={"doubt": 1.0})
    assert (len(routed.people), len(routed.answered), routed.units) == (10, 50, 110)
    assert not routed.judge
    assert set(ids(routed.answered)) | set(ids(c.candidate for c in routed.people)) == set(
        ids(judged)
    )


def test_the_judge_is_believed_from_a_confidence_on():
    """Confidence is |2 p - 1|, and 0 where the orders contradict each other."""
    said = [
        *pool(1, 1, p_a=0.9),
        *pool(1, 1, p_a=0.2),
        *pool(1, 1, p_a=0.75),
        *pool(1, 1, p_a=0.95, orders=(1.0, 0.4)),
    ]
    routed = route(said, budget=1, people=0.0, shares={"random": 1.0}, trusted=0.6)
    assert [candidate.p_a for candidate in routed.answered] == [0.9, 0.2]
    assert [candidate.p_a for candidate in routed.distrusted] == [0.75, 0.95]
    assert not routed.judge
    assert not routed.withheld


def test_the_judge_gets_whole_prompts():
    routed = route(pool(50), budget=20, people=0.0, shares={"random": 1.0})
    by_prompt = Counter(candidate.comparison.prompt.id for candidate in routed.judge)
    assert sorted(by_prompt.values()) == [2, 6, 6, 6]


def test_what_people_leave_the_judge_may_spend():
    routed = route(pool(9), budget=660, people=0.5, shares={"category": 1.0}, categories=["safety"])
    # People have 30 places and 18 candidates.
    assert (len(routed.people), len(routed.judge), routed.units) == (18, 36, 18 * 11 + 36)


@given(
    budget=st.integers(1, 500),
    people=st.floats(0, 1),
    categories=st.sampled_from([(), ("safety",), ("billing", "safety")]),
    per_prompt=st.sampled_from([None, 1, 2]),
    trusted=st.sampled_from([0.0, 0.8, 0.81, 2.0]),
    seed=st.integers(0, 3),
)
def test_every_candidate_is_in_one_place_and_the_budget_holds(
    budget, people, categories, per_prompt, trusted, seed
):
    candidates = pool(8, 3) + [
        Candidate(Comparison(Prompt(f"q{i}", (Message("user", "?"),)), "a", "b", f"q{i}"), p_a=0.9)
        for i in range(5)
    ]
    routed = route(
        candidates,
        budget=budget,
        people=people,
        shares={"random": 0.5, "category": 0.5},
        categories=categories,
        per_prompt=per_prompt,
        trusted=trusted,
        seed=seed,
    )
    parts = [
        [chosen.candidate for chosen in routed.people],
        routed.judge,
        routed.answered,
        routed.distrusted,
        routed.withheld,
        routed.unaffordable,
    ]
    assert sorted(name for part in parts for name in ids(part)) == sorted(ids(candidates))
    assert routed.units == 11 * len(routed.people) + len(routed.judge) <= budget
    assert not routed.judge or not routed.unaffordable or routed.units == budget


def test_routing_depends_on_the_seed_alone():
    def routed(candidates, seed):
        found = route(candidates, budget=100, people=0.5, shares={"random": 1.0}, seed=seed)
        return ids(chosen.candidate for chosen in found.people), ids(found.judge)

    assert routed(pool(30), 1) == routed(pool(30)[::-1], 1)
    assert routed(pool(30), 1) != routed(pool(30), 2)


def test_a_share_above_one_is_an_error():
    with pytest.raises(DataError, match=r"people's share of the budget is 1.5"):
        route(pool(1), budget=10, people=1.5, shares={"random": 1.0})
