import math

import pytest

from tutelage.feedback.server.gold import gold_accuracy, is_due


def test_accuracy_counts_sides_and_gives_half_for_a_tie():
    # right, right though hesitant, wrong, tie
    assert gold_accuracy([(1.0, 1.0), (4 / 6, 1.0), (0.0, 1.0), (0.5, 0.0)]) == 2.5 / 4


def test_known_tie_is_right_only_as_a_tie():
    assert gold_accuracy([(0.5, 0.5)]) == 1.0
    assert gold_accuracy([(1.0, 0.5)]) == 0.0


def test_nothing_known_is_no_number():
    assert math.isnan(gold_accuracy([]))


@pytest.mark.parametrize("every", [2, 10])
def test_gold_items_come_once_in_so_many_at_moments_that_differ_by_person(every):
    due = {name: [is_due(name, n, every) for n in range(4000)] for name in ("ada", "bob")}
    for moments in due.values():
        # Four standard deviations of a binomial share.
        assert abs(sum(moments) / 4000 - 1 / every) < 4 * math.sqrt((1 / every) / 4000)
    assert due["ada"] != due["bob"]
