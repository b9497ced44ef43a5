"""Agreement against published worked examples and numbers worked out by hand."""

import math

import pytest

from tutelage.feedback.server.agreement import cohen_kappa, krippendorff_alpha, mean_kappa


def items(*rows: str) -> list[dict[str, float]]:
    """One row of digits per rater, a dot where the rater gave no value."""
    return [
        {str(rater): float(value) for rater, value in enumerate(column) if value != "."}
        for column in zip(*rows, strict=True)
    ]


KRIPPENDORFF_2011 = items("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
"""Example D: four observers, twelve units, values 1 to 5."""


def test_alpha_of_krippendorffs_example_with_four_observers():
    assert krippendorff_alpha(KRIPPENDORFF_2011) == pytest.approx(0.743, abs=5e-4)  # 3 digits
    ordinal = krippendorff_alpha(KRIPPENDORFF_2011, "ordinal")
    assert ordinal == pytest.approx(0.815, abs=5e-4)  # as printed: 3 digits


def test_alpha_of_krippendorffs_example_with_two_observers():
    """Example A: ten units, two values. D_o = 4/10 mismatches; 14 zeros and 6 ones."""
    binary = items("0100000010", "1110010000")
    by_hand = 1 - 19 * (4 * 2) / (2 * 14 * 6)
    assert krippendorff_alpha(binary) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.095, abs=5e-4)  # as printed: 3 digits


def test_two_values_make_ordinal_and_nominal_the_same():
    binary = items("0100000010", "1110010000")
    assert krippendorff_alpha(binary, "ordinal") == pytest.approx(krippendorff_alpha(binary))


def test_full_agreement_is_one_and_systematic_contradiction_below_zero():
    assert krippendorff_alpha(items("1223", "1223", "1223")) == 1.0
    assert krippendorff_alpha(items("1212", "2121")) < 0.0


def test_ordinal_alpha_forgives_neighbours():
    near, far = items("1234", "2345"), items("1234", "5432")
    assert krippendorff_alpha(near, "ordinal") > krippendorff_alpha(near)
    assert krippendorff_alpha(near, "ordinal") > krippendorff_alpha(far, "ordinal")


def test_alpha_ignores_items_that_one_person_rated():
    shared = items("12312", "12321")
    assert krippendorff_alpha([*shared, {"0": 3.0}, {}]) == krippendorff_alpha(shared)


@pytest.mark.parametrize("nothing", [[], [{"x": 1.0}], items("222", "222")])
def test_alpha_is_unknown_where_nothing_can_differ(nothing):
    assert math.isnan(krippendorff_alpha(nothing))


def test_kappa_of_a_table_worked_out_by_hand():
    """20 both yes, 15 both no, 5 and 10 mixed: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5."""
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)


def test_kappa_of_cohens_own_example():
    """Cohen 1960, table 1: proportions of 200 cases in three categories; kappa 0.429 by hand."""
    table = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]
    pairs = [(i, j) for i in range(3) for j in range(3) for _ in range(table[i][j])]
    expected = 0.60 * 0.50 + 0.30 * 0.30 + 0.10 * 0.20
    assert cohen_kappa(pairs) == pytest.approx((0.70 - expected) / (1 - expected))
    assert expected == pytest.approx(0.41)


@pytest.mark.parametrize("pairs", [[], [(1.0, 1.0)] * 3])
def test_kappa_is_unknown_where_chance_explains_everything(pairs):
    assert math.isnan(cohen_kappa(pairs))


def test_mean_kappa_weighs_each_two_people_by_what_they_share():
    # x and y agree on all of 4 items (kappa 1); x and z contradict on 2 (kappa -1).
    rated = [{"x": 1, "y": 1}, {"x": 0, "y": 0}] * 2 + [{"x": 1, "z": 0}, {"x": 0, "z": 1}]
    assert mean_kappa(rated) == pytest.approx((4 * 1.0 + 2 * -1.0) / 6)
