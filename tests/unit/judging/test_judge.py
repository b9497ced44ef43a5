import pytest

from tutelage.errors import RewardError
from tutelage.judging import in_both_orders
from tutelage.records import Comparison, Message, Prompt

PROMPT = Prompt("p", (Message("user", "?"),))
COMPARISONS = [Comparison(PROMPT, "long answer", "short"), Comparison(PROMPT, "x", "y")]


def test_a_taste_for_the_first_place_drops_out():
    def first(comparisons):
        return [0.9] * len(comparisons)

    assert in_both_orders(first, COMPARISONS) == pytest.approx([0.5, 0.5])


def test_a_taste_for_an_answer_stays():
    def longer(comparisons):
        return [0.8 if len(each.a) > len(each.b) else 0.2 for each in comparisons]

    # (0.8 + 1 - 0.2) / 2; answers of equal length are 0.2 in both orders.
    assert in_both_orders(longer, COMPARISONS) == pytest.approx([0.8, 0.5])


def test_what_it_cannot_tell_in_one_order_it_cannot_tell():
    def of_x_first(comparisons):
        return [None if each.a == "x" else 0.7 for each in comparisons]

    assert in_both_orders(of_x_first, COMPARISONS) == [pytest.approx(0.5), None]


def test_nothing_is_asked_about_nothing():
    assert in_both_orders(lambda comparisons: [], []) == []


@pytest.mark.parametrize("answer", [1.5, -0.1, float("nan"), float("inf")])
def test_what_is_no_probability_is_refused(answer):
    with pytest.raises(RewardError, match="expected the probability"):
        in_both_orders(lambda comparisons: [answer] * len(comparisons), COMPARISONS)


def test_answers_that_are_missing_are_noticed():
    with pytest.raises(RewardError, match="1 answers to 2 comparisons"):
        in_both_orders(lambda comparisons: [0.5], COMPARISONS)
