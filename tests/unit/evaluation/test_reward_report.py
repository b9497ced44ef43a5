"""What is said of a reward model, on pairs whose truth is known."""

import math

import numpy as np
import pytest

from tutelage.errors import DataError
from tutelage.evaluation.calibration import calibration, fit_temperature, temperature
from tutelage.evaluation.folds import agreement, disagreement_finds_errors, fold_of_prompts
from tutelage.evaluation.intervals import bootstrap_mean, clustered_mean
from tutelage.evaluation.length_control import length_control
from tutelage.evaluation.reward_baselines import length_margins, word_margins
from tutelage.evaluation.reward_report import accuracy_by_group, measure_pairs, worst_pairs
from tutelage.evaluation.scored_pairs import ScoredPairs


def test_temperature_undoes_a_factor_on_log_odds():
    random = np.random.default_rng(0)
    odds = random.normal(0, 1.5, 6000)
    labels = (random.random(6000) < 1 / (1 + np.exp(-odds))).astype(float)
    assert fit_temperature(odds, labels) == pytest.approx(1, abs=0.06)  # sampling error
    assert fit_temperature(3 * odds, labels) == pytest.approx(
        3 * fit_temperature(odds, labels), rel=1e-6
    )


def test_temperature_of_soft_labels_is_exact():
    margins = np.array([-2.0, 0.5, 3.0, 1.0])
    labels = 1 / (1 + np.exp(-margins / 2.5))
    assert fit_temperature(margins, labels) == pytest.approx(2.5, rel=1e-6)


def test_temperature_is_measured_where_it_was_not_fitted():
    random = np.random.default_rng(1)
    odds = random.normal(0, 1.5, 2000)
    labels = (random.random(2000) < 1 / (1 + np.exp(-odds))).astype(float)
    prompts = [f"p{i}" for i in range(2000)]
    before, after = calibration(4 * odds, labels), temperature(4 * odds, labels, prompts)
    assert after.ece < before.ece / 3
    assert after.brier < before.brier
    best = calibration(4 * odds / after.temperature, labels)
    assert after.loss >= best.loss - 1e-9


def test_each_half_is_scaled_by_the_other_halfs_temperature():
    # Soft labels say exactly what each half needs: 4 for prompts a and c, 1 for b and d.
    margins = np.array([-2.0, 3.0, -1.0, 2.0, 1.0, -3.0, 2.5, 0.5])
    prompts = list("aabbccdd")
    own = np.array([4.0, 4.0, 1.0, 1.0, 4.0, 4.0, 1.0, 1.0])
    labels = 1 / (1 + np.exp(-margins / own))
    expected = calibration(margins / np.where(own == 4.0, 1.0, 4.0), labels)
    assert temperature(margins, labels, prompts).loss == pytest.approx(expected.loss, rel=1e-6)


def test_margins_that_contradict_the_labels_or_are_all_zero_stay_finite():
    assert math.isfinite(fit_temperature(np.array([1.0, 2.0]), np.array([0.0, 0.0])))
    assert fit_temperature(np.zeros(3), np.ones(3)) == 1.0


def test_many_pairs_of_one_prompt_do_not_narrow_the_interval():
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    alone = bootstrap_mean(values)
    repeated = clustered_mean(np.repeat(values, 20), [i // 20 for i in range(120)])
    naive = bootstrap_mean(np.repeat(values, 20))
    assert (repeated.mean, repeated.n) == (alone.mean, 120)
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, abs=0.05)
    assert naive.high - naive.low < 0.5 * (repeated.high - repeated.low)
    assert clustered_mean(values, list("abcdef")) == alone


def pairs_of_lengths(judged, rows, margin) -> ScoredPairs:
    """Rows of (length of the better, length of the worse)."""
    preferences = [judged("x" * better, "y" * worse) for better, worse in rows]
    return ScoredPairs.of(preferences, [margin(better, worse) for better, worse in rows])


def test_a_model_that_counts_characters_is_seen_through(judged):
    rows = [(40 + i, 20) for i in range(30)] + [(20, 40 + i) for i in range(10)]
    control = length_control(
        pairs_of_lengths(judged, rows, lambda better, worse: 0.01 * (better - worse))
    )
    assert control.correlation == pytest.approx(1)
    assert (control.longer_is_better.mean, control.shorter_is_better.mean) == (1.0, 0.0)
    assert control.balanced == 0.5
    assert control.adjusted.mean == 0.5
    assert control.similar.n == 0
    assert control.to_json()["similar"] is None


def test_a_model_that_is_right_at_any_length_stays_right(judged):
    rows = [(40 + i, 20) for i in range(30)] + [(20, 40 + i) for i in range(30)] + [(50, 52)] * 9
    control = length_control(pairs_of_lengths(judged, rows, lambda better, worse: 1.0))
    assert control.adjusted.mean == control.balanced == control.similar.mean == 1.0
    assert control.similar.n == 9
    assert abs(control.correlation) < 0.1


def test_length_baseline_learns_which_way_length_counts(judged):
    longer = [judged("x" * (i + 20), "y" * (i + 10)) for i in range(40)]
    shorter = [judged(row.comparison.b, row.comparison.a) for row in longer]
    test = [judged("x" * 30, "y" * 10), judged("x" * 10, "y" * 30)]
    assert np.sign(length_margins(longer, test)).tolist() == [1, -1]
    assert np.sign(length_margins(shorter, test)).tolist() == [-1, 1]


def test_word_baseline_finds_the_word_that_decides(judged):
    filler = ["red", "green", "blue", "gold"]
    training = [
        judged(f"{filler[i % 4]} thanks", filler[(i + 1) % 4], i % 2, source="s")
        if i % 2
        else judged(filler[(i + 1) % 4], f"{filler[i % 4]} thanks", 0.0)
        for i in range(60)
    ]
    test = [judged("many THANKS", "many"), judged("gold", "gold thanks"), judged("unseen", "word")]
    assert np.sign(word_margins(training, test)).tolist() == [1, -1, 0]


def test_a_model_that_counts_characters_does_not_beat_that_baseline(judged):
    random = np.random.default_rng(0)
    rows = [(int(a), int(b)) for a, b in random.integers(5, 60, (300, 2)) if a != b]
    # The longer answer is the better one in four of five.
    preferences = [
        judged("x" * max(row), "y" * min(row), 1.0 if random.random() < 0.8 else 0.0)
        for row in rows
    ]
    training, test = preferences[:150], preferences[150:]
    by_length = ScoredPairs.of(
        test, [len(row.comparison.a) - len(row.comparison.b) for row in test]
    )
    report = measure_pairs(by_length, training)
    assert report["baselines"]["length"]["lead"]["mean"] == 0.0
    assert not report["baselines"]["length"]["better"]
    assert any("length of the answers" in line for line in report["verdict"])
    truth = ScoredPairs.of(test, [row.p_a - 0.5 for row in test])
    report = measure_pairs(truth, training)
    assert report["accuracy"]["mean"] == 1.0
    assert report["baselines"]["length"]["better"]
    assert not any("length" in line for line in report["verdict"])


def test_accuracy_is_told_apart_by_source_category_strength_and_kind(judged):
    rows = [judged("a", "b", source="easy", strength=1.0) for _ in range(10)]
    rows += [judged("a", "b", source="hard", strength=3.0, kind="ai") for _ in range(10)]
    rows += [judged("a", "b", source="rare") for _ in range(3)]
    tables = accuracy_by_group(ScoredPairs.of(rows, [1.0] * 10 + [-1.0] * 10 + [1.0] * 3))
    assert [(row["name"], row["mean"], row["n"]) for row in tables["source"]] == [
        ("hard", 0.0, 10),
        ("easy", 1.0, 10),
    ]
    assert [row["name"] for row in tables["strength"]] == ["3", "1"]
    assert [row["name"] for row in tables["annotators"]] == ["ai", "human"]
    assert "category" not in tables


def test_worst_pairs_contradict_their_label_most(judged):
    rows = [judged("a", "b"), judged("c", "d", 0.0), judged("e", "f"), judged("g", "h", 0.5)]
    shown = worst_pairs(ScoredPairs.of(rows, [-1.0, 4.0, 2.0, 9.0]))
    assert [(row["better"], row["worse"], row["margin"]) for row in shown] == [
        ("d", "c", -4.0),
        ("a", "b", -1.0),
    ]


def test_pairs_that_could_not_be_scored_are_left_out(judged):
    pairs = ScoredPairs.of([judged("a", "b"), judged("c", "d")], [None, 1.0])
    assert (len(pairs), pairs.right.tolist()) == (1, [1.0])
    with pytest.raises(DataError, match="could be scored"):
        ScoredPairs.of([judged("a", "b")], [None])


def test_folds_keep_prompts_together_and_are_even():
    prompts = [f"p{i // 3}" for i in range(30)]
    fold_of = fold_of_prompts(prompts, 4, seed=1)
    sizes = np.bincount(list(fold_of.values())).tolist()
    assert sorted(sizes) == [2, 2, 3, 3]
    assert fold_of_prompts(prompts[::-1], 4, seed=1) == fold_of
    assert fold_of_prompts(prompts, 4, seed=2) != fold_of


def test_agreement_of_equal_and_of_opposite_models():
    margins = np.array([1.0, -2.0, 3.0])
    same = agreement(np.stack([margins, 2 * margins]))
    assert (same["same_choice"], same["correlation"]) == (1.0, pytest.approx(1))
    assert agreement(np.stack([margins, -margins]))["same_choice"] == 0.0


def test_disagreement_on_the_wrong_pairs_only_finds_them_all():
    margins = np.array([[1.0, 1.0, 3.0], [1.0, 1.2, -5.0]])
    assert disagreement_finds_errors(margins, np.array([1.0, 1.0, 0.0])) == 1.0
    assert disagreement_finds_errors(margins, np.array([0.0, 1.0, 1.0])) == 0.0
    assert disagreement_finds_errors(margins, np.ones(3)) is None
    assert disagreement_finds_errors(np.ones((2, 4)), np.array([1.0, 0.0, 1.0, 0.0])) == 0.5
