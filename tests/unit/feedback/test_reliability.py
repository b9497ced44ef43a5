"""Annotators' accuracies against closed forms, brute force, planted truth and symmetry."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.feedback.reliability import (
    PRIOR_ACCURACY,
    PRIOR_JUDGEMENTS,
    accuracy_from_agreement,
    annotators,
    dawid_skene,
    pairwise_accuracies,
)
from tutelage.records import Comparison, Message, Preference, Prompt

Votes = tuple[np.ndarray, np.ndarray, np.ndarray]


def table(rows: Sequence[tuple[int, int, float]]) -> Votes:
    items, who, votes = zip(*rows, strict=True)
    return np.array(items), np.array(who), np.array(votes, dtype=float)


def planted(
    accuracies: Sequence[float], items: int, seed: int, each: int | None = None, tie: float = 0.0
) -> tuple[Votes, np.ndarray]:
    """Votes of annotators of known accuracy on items of known class, `each` votes per item."""
    source = np.random.default_rng(seed)
    truth = source.integers(0, 2, items)
    rows = []
    for item in range(items):
        chosen = source.permutation(len(accuracies))[: each or len(accuracies)]
        for who in chosen.tolist():
            right = source.random() < accuracies[who]
            vote = 0.5 if source.random() < tie else float(truth[item] == right)
            rows.append((item, who, vote))
    return table(rows), truth


VOTES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0])),
    min_size=1,
    max_size=10,
)


def enumerated(rows: Sequence[tuple[int, int, float]], q: Sequence[float]) -> float:
    """log P(votes | q) + log prior, summing over every assignment of classes to items."""
    num_items = max(item for item, _, _ in rows) + 1
    total = 0.0
    for classes in itertools.product((0, 1), repeat=num_items):
        p = 0.5**num_items
        for item, who, vote in rows:
            agrees = vote if classes[item] else 1 - vote
            p *= q[who] ** agrees * (1 - q[who]) ** (1 - agrees)
        total += p
    right = PRIOR_JUDGEMENTS * PRIOR_ACCURACY
    wrong = PRIOR_JUDGEMENTS - right
    prior = sum(right * math.log(x) + wrong * math.log(1 - x) for x in q)
    return math.log(total) + prior


@settings(max_examples=60)
@given(rows=VOTES)
def test_the_posterior_is_that_of_every_assignment_summed(
    rows: list[tuple[int, int, float]],
) -> None:
    found = dawid_skene(*table(rows))
    assert found.log_posterior == pytest.approx(enumerated(rows, found.accuracy.tolist()), abs=1e-9)


@settings(max_examples=60)
@given(rows=VOTES)
def test_no_small_step_from_the_solution_is_better(rows: list[tuple[int, int, float]]) -> None:
    accuracy = dawid_skene(*table(rows), tolerance=1e-12).accuracy
    best = enumerated(rows, accuracy.tolist())
    for who, step in itertools.product(range(len(accuracy)), (-0.01, 0.01)):
        moved = accuracy.copy()
        moved[who] += step
        assert enumerated(rows, moved.tolist()) <= best + 1e-9


@settings(max_examples=30)
@given(rows=VOTES)
def test_no_step_of_em_lowers_the_posterior(rows: list[tuple[int, int, float]]) -> None:
    votes = table(rows)
    course = [dawid_skene(*votes, most_steps=n).log_posterior for n in range(8)]
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(course))


def test_annotators_who_always_agree_in_closed_form() -> None:
    # Two annotators, n items, always equal votes, no prior but a start: q tends to 1, p with it.
    rows = [(item, who, float(item % 2)) for item in range(6) for who in range(2)]
    found = dawid_skene(*table(rows), prior_judgements=1e-9)
    assert found.accuracy == pytest.approx([1.0, 1.0], abs=1e-5)
    assert found.p == pytest.approx([0, 1] * 3, abs=1e-9)


def test_with_known_classes_an_accuracy_is_a_share() -> None:
    # Four perfect annotators fix the classes; the fifth is right on 3 of 8 items.
    rows = [(item, who, 1.0) for item in range(8) for who in range(4)]
    rows += [(item, 4, float(item < 3)) for item in range(8)]
    found = dawid_skene(*table(rows), prior_judgements=1e-9)
    # The four are not wholly sure of an item that the fifth denies: 1e-6 is the bound on q.
    assert found.accuracy[4] == pytest.approx(3 / 8, abs=1e-5)


def test_who_shares_nothing_keeps_the_prior() -> None:
    rows = [(item, item % 2, float(item % 3 == 0)) for item in range(12)]
    found = dawid_skene(*table(rows))
    assert found.accuracy == pytest.approx([PRIOR_ACCURACY] * 2)
    assert set(np.round(found.p, 9)) == {round(PRIOR_ACCURACY, 9), round(1 - PRIOR_ACCURACY, 9)}


def test_a_tie_says_nothing_of_the_item_and_costs_half_an_error() -> None:
    ties = [(item, 0, 0.5) for item in range(10)]
    found = dawid_skene(*table(ties))
    assert found.p == pytest.approx([0.5] * 10)
    right = 5 + PRIOR_JUDGEMENTS * PRIOR_ACCURACY
    assert found.accuracy[0] == pytest.approx(right / (10 + PRIOR_JUDGEMENTS))


@given(rows=VOTES, turned=st.sets(st.integers(0, 3)))
def test_which_answer_comes_first_does_not_matter(
    rows: list[tuple[int, int, float]], turned: set[int]
) -> None:
    other = [(item, who, 1 - v if item in turned else v) for item, who, v in rows]
    one, mirrored = dawid_skene(*table(rows)), dawid_skene(*table(other))
    assert mirrored.accuracy == pytest.approx(one.accuracy, abs=1e-9)
    for item, p in enumerate(one.p):
        assert mirrored.p[item] == pytest.approx(1 - p if item in turned else p, abs=1e-9)
    simple = pairwise_accuracies(*table(rows))
    assert pairwise_accuracies(*table(other)) == pytest.approx(simple, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_planted_accuracies_are_recovered(seed: int) -> None:
    accuracies = np.array([0.95, 0.85, 0.75, 0.65, 0.5])
    votes, truth = planted(accuracies, 2000, seed)
    found = dawid_skene(*votes)
    # Four standard errors of a share of 2000; that the classes are not known adds a little, and
    # five pseudo-judgements move a share of 2000 by 0.001 at most.
    error = 4 * np.sqrt(accuracies * (1 - accuracies) / 2000) * 1.5 + 0.001
    assert (np.abs(found.accuracy - accuracies) < error).all()
    majority = np.bincount(votes[0], votes[2] - 0.5) > 0
    assert ((found.p > 0.5) == truth).mean() >= (majority == truth).mean()


def test_random_annotators_are_found_among_few_votes_per_item() -> None:
    accuracies = [0.8] * 5 + [0.5] * 3
    votes, _ = planted(accuracies, 3000, seed=1, each=3, tie=0.1)
    decided = votes[2] != 0.5
    kept = tuple(column[decided] for column in votes)
    for estimate in (dawid_skene(*kept).accuracy, pairwise_accuracies(*kept)):
        # About 1,000 votes each, 2 partners: a standard error near 0.03.
        assert estimate[:5].min() > 0.68
        assert estimate[5:].max() < 0.62


def test_accuracy_from_agreement_inverts_the_agreement_of_independent_annotators() -> None:
    for q, other in itertools.product((0.55, 0.7, 0.9), (0.6, 0.8)):
        agree = q * other + (1 - q) * (1 - other)
        assert accuracy_from_agreement(agree, other) == pytest.approx(q)
        assert accuracy_from_agreement(q * q + (1 - q) ** 2) == pytest.approx(q)
    # InstructGPT's labellers agree on 72.6 %: right on 83.6 %.
    assert accuracy_from_agreement(0.726) == pytest.approx(0.836, abs=5e-4)


def test_pairwise_accuracies_worked_out_by_hand() -> None:
    # Annotator 2 contradicts 0 and 1, who agree: of the judgements each compares with 2 others.
    rows = [(item, who, float(who < 2)) for item in range(4) for who in range(3)]
    found = pairwise_accuracies(*table(rows), prior_accuracy=0.7, prior_judgements=0.001)
    # Agreements: 4 of 8 for 0 and 1, 0 of 8 for 2; pooled 8 of 24, no better than chance.
    assert found[2] < found[0] == pytest.approx(found[1])
    agreeing = pairwise_accuracies(*table([row for row in rows if row[1] < 2]))
    # 4 of 4 agreements and 5 of the prior's 0.58: a = (4 + 2.9) / 9 = 0.76667, for both.
    assert agreeing == pytest.approx([(1 + math.sqrt(2 * 6.9 / 9 - 1)) / 2] * 2)


def judged(number: int, annotator: str, p_a: float) -> Preference:
    prompt = Prompt(f"{number}", (Message("user", f"Question {number}?"),))
    comparison = Comparison(prompt, "good", "bad", f"{annotator}/{number}")
    preference = Preference(comparison, p_a, annotator)
    return preference.swap() if number % 2 else preference


def test_weights_come_from_texts_and_not_from_ids() -> None:
    rows = [judged(i, name, 1.0) for i in range(40) for name in ("ann", "bob")]
    rows += [judged(i, "random", float(i % 4 < 2)) for i in range(40)]
    rows += [judged(i, "judge", 0.7) for i in range(20)]
    rows.append(judged(99, "alone", 1.0))
    for model in ("agreement", "dawid-skene"):
        found = annotators(rows, model)
        assert [found[name].shared for name in ("ann", "judge", "alone")] == [40, 20, 0]
        assert found["alone"].judgements == 1
        assert found["ann"].accuracy == pytest.approx(found["bob"].accuracy)
        assert found["random"].accuracy < found["alone"].accuracy < found["ann"].accuracy
        assert found["random"].weight < 0.5 < 1.0 < found["ann"].weight
        total = sum(row.weight * row.judgements for row in found.values())
        assert total == pytest.approx(len(rows))
        ratio = found["judge"].weight / found["ann"].weight
        edges = [2 * found[name].accuracy - 1 for name in ("judge", "ann")]
        assert ratio == pytest.approx(edges[0] / edges[1])


def test_no_judgements_are_no_annotators() -> None:
    assert annotators([], "dawid-skene") == {}


@pytest.mark.parametrize("q", [0.6, 0.8])
def test_the_weight_beats_others_at_telling_a_sum_from_noise(q: float) -> None:
    """mean / deviation of w_1 y_1 + w_2 y_2 with y = +-1, right with 0.9 and with q."""

    def ratio(w: float) -> float:
        mean = (2 * 0.9 - 1) + w * (2 * q - 1)
        # Around 0 margin both answers are as likely, so that each vote has variance 1.
        return mean / math.sqrt(1 + w * w)

    best = (2 * q - 1) / (2 * 0.9 - 1)
    assert all(ratio(best) >= ratio(best + step) for step in (-0.1, -0.01, 0.01, 0.1))
