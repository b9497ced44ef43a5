"""What a judge's report says, against numbers worked out by hand and judges of known faults."""

import math
import random

import numpy as np
import pytest

from tutelage.evaluation.judge_agreement import kappa
from tutelage.evaluation.judge_probes import Probed, chosen_for_probes, sycophancy, with_opinion
from tutelage.evaluation.judge_report import Judged, judge_report
from tutelage.records import Comparison, Message, Prompt


def pair(name: str, a: str = "long answer", b: str = "short", category: str = "") -> Comparison:
    prompt = Prompt(name, (Message("user", f"question {name}?"),), category=category)
    return Comparison(prompt, a, b, name)


def rows(*orders, people=None, **options) -> list[Judged]:
    labels = people or [None] * len(orders)
    return [
        Judged(pair(f"p{i}", **options), both, label)
        for i, (both, label) in enumerate(zip(orders, labels, strict=True))
    ]


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def simulated(count: int, bias: float, seed: int = 0) -> list[Judged]:
    """A judge of logits N(0, 1) that favours what it reads first; people agree with the logit."""
    random_ = random.Random(seed)
    found = []
    for i in range(count):
        logit = random_.gauss(0.0, 1.0)
        both = (sigmoid(logit + bias), 1.0 - sigmoid(-logit + bias))
        found.append(Judged(pair(f"p{i}"), both, float(logit > 0)))
    return found


def test_position_bias_by_hand():
    # First wins twice, second wins twice, a in both orders, b in both orders.
    report = judge_report(rows((0.9, 0.2), (0.4, 0.7), (0.8, 0.9), (0.3, 0.1)))
    position = report["position"]
    assert position["contradictions"]["mean"] == pytest.approx(0.5)
    assert position["first_wins_twice"]["mean"] == pytest.approx(0.25)
    assert position["second_wins_twice"]["mean"] == pytest.approx(0.25)
    shown_first = [0.9, 0.4, 0.8, 0.3, 1 - 0.2, 1 - 0.7, 1 - 0.9, 1 - 0.1]
    assert position["p_first"]["mean"] == pytest.approx(np.mean(shown_first))


def test_swapping_every_pair_changes_nothing_but_its_name():
    judged = simulated(40, 0.4)
    swapped = [
        Judged(
            row.comparison.swap(), (1 - row.orders[1], 1 - row.orders[0]), 1 - (row.people or 0.0)
        )
        for row in judged
    ]
    one, other = judge_report(judged), judge_report(swapped)
    assert one["position"]["p_first"] == pytest.approx(other["position"]["p_first"])
    assert one["people"]["accuracy"] == pytest.approx(other["people"]["accuracy"])
    assert one["people"]["kappa"] == pytest.approx(other["people"]["kappa"])


def test_averaging_takes_out_an_injected_position_bias():
    """Nine tenths of what the bias costs in accuracy, at least, come back (testbed gate 11)."""
    judged = simulated(400, 1.0)
    first_only = np.mean([(row.orders[0] > 0.5) == row.people for row in judged])
    both = judge_report(judged)["people"]["accuracy"]["mean"]
    assert 1.0 - both <= 0.1 * (1.0 - first_only)


def test_verdicts_that_cannot_be_read_are_counted_by_order():
    report = judge_report(rows((0.9, 0.8), (None, 0.8), (0.9, None), (None, None)))
    assert (report["comparisons"], report["judged"]) == (4, 1)
    assert report["parse_rate"]["mean"] == pytest.approx(0.5)
    assert any("could be read" in warning for warning in report["warnings"])


def test_nothing_readable_is_a_report_too():
    report = judge_report(rows((None, None)), [Probed(pair("p"), None, 0.5)], own="me")
    for part in ("position", "length", "self_preference", "sycophancy", "people"):
        assert report[part] is None
    assert judge_report([])["warnings"] == []


def test_length_bias_is_what_the_longer_answer_gets_beyond_what_people_give_it():
    found = [
        Judged(pair("p0", "long answer", "short"), (0.8, 0.6), 1.0),
        Judged(pair("p1", "short", "long answer"), (0.1, 0.3), 1.0),
        Judged(pair("p2", "equal", "equal"), (0.9, 0.9), 1.0),
        Judged(pair("p3", "long answer", "short"), (0.9, 0.9)),
    ]
    length = judge_report(found)["length"]
    assert length["p_longer"]["mean"] == pytest.approx((0.7 + 0.8 + 0.9) / 3)
    assert length["people"]["mean"] == pytest.approx((1.0 + 0.0) / 2)
    assert length["excess"]["mean"] == pytest.approx((0.7 + 0.8) / 2 - 0.5)


def test_self_preference_is_of_pairs_with_one_own_answer():
    found = [
        Judged(pair("p0"), (0.8, 0.8), 0.0, ("me", "you")),
        Judged(pair("p1"), (0.4, 0.4), 1.0, ("you", "me")),
        Judged(pair("p2"), (0.9, 0.9), 1.0, ("me", "me")),
        Judged(pair("p3"), (0.9, 0.9), 1.0),
    ]
    own = judge_report(found, own="me")["self_preference"]
    assert own["p_own"]["mean"] == pytest.approx((0.8 + 0.6) / 2)
    assert own["p_own"]["n"] == 2
    assert own["excess"]["mean"] == pytest.approx(0.7)


def test_agreement_with_people_by_hand():
    found = rows((0.9, 0.8), (0.2, 0.3), (0.6, 0.4), (0.7, 0.9), people=[1.0, 0.0, 1.0, 0.0])
    people = judge_report(found)["people"]
    # Right, right, p_a 0.5 by its mean, wrong.
    assert people["accuracy"]["mean"] == pytest.approx(2.5 / 4)
    # Verdicts a, b, tie, a against a, b, a, b: p_o = 1/2, p_e = (1 - 1/4)(1 - 0)/2 = 3/8.
    assert people["kappa"]["mean"] == pytest.approx((0.5 - 0.375) / (1 - 0.375))


def test_kappa_is_within_three_hundredths_of_the_truth():
    """Testbed gate 11: two labellers who each err, 5,000 pairs, the truth from their rates.

    The judge is right with probability .8 and people with .7, independently: they say the same
    where both or neither are right, p_o = .62, and kappa = 2 p_o - 1.
    """
    random_ = random.Random(0)
    found = []
    for i in range(5000):
        judge, people = random_.random() < 0.8, random_.random() < 0.7
        found.append(Judged(pair(f"p{i}"), (0.9, 0.9) if judge else (0.1, 0.1), float(people)))
    people = judge_report(found)["people"]
    assert people["kappa"]["mean"] == pytest.approx(2 * 0.62 - 1, abs=0.03)


def test_the_report_says_which_labels_need_no_people():
    """Sure verdicts are always people's; of the others, half are."""
    found = [Judged(pair(f"s{i}"), (0.9, 0.9), 1.0) for i in range(60)]
    found += [Judged(pair(f"u{i}"), (0.6, 0.6), float(i % 2)) for i in range(60)]
    trust = judge_report(found)["people"]["trust"]
    assert (trust["coverage"], trust["labels"]) == (0.5, 60)
    assert 0.19 < trust["confidence"] <= 0.8
    contradicting = [Judged(pair(f"c{i}"), (1.0, 0.2), float(i % 2)) for i in range(60)]
    assert judge_report([*found[:60], *contradicting])["people"]["trust"]["labels"] == 60


def test_a_judge_that_is_not_to_be_believed_is_said_to_be_none():
    coin = rows(*[(0.9, 0.9), (0.1, 0.1)] * 30, people=[1.0, 0.0, 0.0, 1.0] * 15)
    assert judge_report(coin)["people"]["trust"] is None
    assert judge_report(rows((0.9, 0.9), people=[1.0]))["people"]["trust"] is None


def test_groups_have_their_own_kappa():
    found = [
        Judged(pair(f"p{i}", category="easy" if i < 12 else "hard"), (0.9, 0.9), float(i < 18))
        for i in range(24)
    ]
    rows_ = {row["name"]: row for row in judge_report(found)["people"]["groups"]["category"]}
    assert rows_["easy"]["kappa"]["mean"] == pytest.approx(1.0)
    # Six of twelve: p_o = 1/2 = p_e.
    assert rows_["hard"]["kappa"]["mean"] == pytest.approx(0.0)
    assert rows_["hard"]["mean"] == pytest.approx(0.5)


def test_judge_of_chance_is_warned_of():
    coin = rows(*[(0.9, 0.9), (0.1, 0.1)] * 10, people=[1.0, 0.0, 0.0, 1.0] * 5)
    assert any("not above chance" in warning for warning in judge_report(coin)["warnings"])
    assert not judge_report(simulated(60, 0.0))["warnings"]


@pytest.mark.parametrize(
    ("agreement", "expected"), [(1.0, 1.0), (0.75, 0.5), (0.5, 0.0), (0.0, -1.0)]
)
def test_kappa_without_ties_is_twice_the_agreement_less_one(agreement, expected):
    # All labels say a, as in files of chosen and rejected: the usual kappa would be 0 for all.
    first = np.ones(40)
    second = np.where(np.arange(40) < 40 * agreement, 0.9, 0.1)
    assert kappa(first, second, range(40)).mean == pytest.approx(expected)


def test_kappa_is_that_of_both_orders_together():
    """The textbook's formula over every pair and its mirror image."""
    draw = np.random.default_rng(0)
    first, second = draw.choice([0.0, 0.5, 1.0], (2, 60))
    one, other = np.concatenate([first, 1 - first]), np.concatenate([second, 1 - second])
    observed = np.mean(one == other)
    expected = sum(np.mean(one == v) * np.mean(other == v) for v in (0.0, 0.5, 1.0))
    found = kappa(first, second, range(60))
    assert found.mean == pytest.approx((observed - expected) / (1 - expected))
    assert found.low < found.mean < found.high
    assert found.n == 60


def test_kappa_is_symmetric_and_chance_explains_ties_alone():
    first, second = np.array([0.9, 0.2, 0.5, 0.8]), np.array([0.6, 0.7, 0.5, 0.1])
    assert kappa(first, second, range(4)) == kappa(second, first, range(4))
    assert kappa(np.full(5, 0.5), np.full(5, 0.5), range(5)).mean == 0.0
    assert kappa(np.array([]), np.array([]), []).n == 0


def test_kappa_estimate_is_within_three_hundredths_of_the_truth():
    """Labels that agree with probability 0.85: kappa is 0.7 (testbed gate 11)."""
    draw = np.random.default_rng(1)
    first = draw.integers(0, 2, 8000).astype(float)
    second = np.where(draw.random(8000) < 0.85, first, 1 - first)
    assert kappa(first, second, range(8000)).mean == pytest.approx(0.7, abs=0.03)


def test_pairs_of_one_prompt_are_no_independent_evidence():
    first, second = np.ones(40), np.where(np.arange(40) % 4 == 0, 0.0, 1.0)
    alone, together = (
        kappa(first, second, range(40)),
        kappa(first, second, [i // 20 for i in range(40)]),
    )
    assert alone.mean == together.mean
    assert (alone.high - alone.low) != (together.high - together.low)


def test_sycophancy_by_hand():
    probes = [
        Probed(pair("p0"), 0.9, 0.4),
        Probed(pair("p1"), 0.6, 0.55),
        Probed(pair("p2"), None, 0.1),
    ]
    found = sycophancy(probes)
    assert found["shift"]["mean"] == pytest.approx((0.25 + 0.025) / 2)
    assert found["turned"]["mean"] == pytest.approx(0.5)
    assert found["shift"]["n"] == 2


def test_opinion_is_the_persons_and_the_answers_stay():
    asked = pair("p", "yes", "x" * 1000)
    for_a, for_b = with_opinion(asked, "a"), with_opinion(asked, "b")
    assert (for_a.a, for_a.b) == (asked.a, asked.b)
    assert for_a.prompt.text.startswith(asked.prompt.text)
    assert for_a.prompt.text.endswith("this is right: yes")
    assert for_b.prompt.text.endswith("x" * 300 + "...")
    assert for_a.prompt.messages[-1].role == "user"


def test_probes_are_drawn_by_the_seed_and_kept_in_order():
    every = [pair(f"p{i}") for i in range(30)]
    drawn = chosen_for_probes(every, 8, seed=1)
    assert len(drawn) == 8
    assert [int(c.id[1:]) for c in drawn] == sorted(int(c.id[1:]) for c in drawn)
    assert drawn == chosen_for_probes(every, 8, seed=1) != chosen_for_probes(every, 8, seed=2)
    assert chosen_for_probes(every, 100) == every
