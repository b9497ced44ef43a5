"""How rewards add up, and how failures travel."""

import math
from collections.abc import Sequence

import pytest

from tutelage.errors import ConfigError, RewardError
from tutelage.records import Completion, Message, Prompt, Score, ScoreStatus, StopReason
from tutelage.rewards import Sum, finite_or_failed, require_scores

PROMPTS = [Prompt(str(i), (Message("user", "q"),)) for i in range(3)]
COMPLETIONS = [Completion(str(i), (5,), (-1.0,), "a", StopReason.STOP_TOKEN) for i in range(3)]


def fixed(*scores: float | Score):
    """A reward that gives these scores, whatever it is asked."""

    def reward(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        return [score if isinstance(score, Score) else Score(score) for score in scores]

    return reward


FAILED = Score.failed(ScoreStatus.TIMEOUT, "no answer in 5 s")


def test_sum_weighs_its_parts_and_keeps_them():
    total = Sum({"model": (2.0, fixed(1, 2, 3)), "length": (-0.5, fixed(4, 0, 2))})
    scores = total(PROMPTS, COMPLETIONS)
    assert [score.value for score in scores] == [0.0, 4.0, 5.0]
    assert scores[2].parts == {"model": 6.0, "length": -1.0}
    assert all(score.ok for score in scores)


def test_one_failed_part_fails_the_sum_of_that_row_alone():
    total = Sum({"model": (1.0, fixed(1, FAILED, 3)), "length": (0.0, fixed(1, 1, 1))})
    first, second, third = total(PROMPTS, COMPLETIONS)
    assert (first.ok, second.ok, third.ok) == (True, False, True)
    assert second.status is ScoreStatus.TIMEOUT
    assert second.notes == "model: no answer in 5 s"
    assert math.isnan(second.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_part_that_is_no_number_fails(value):
    score = Sum({"mine": (1.0, fixed(value, 0, 0))})(PROMPTS, COMPLETIONS)[0]
    assert score.status is ScoreStatus.NOT_FINITE
    assert score.notes.startswith("mine: the score is")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39, -1e39])
def test_a_score_that_float32_cannot_hold_has_failed(value):
    kept, odd, failed = finite_or_failed([Score(3e38), Score(value), FAILED])
    assert kept == Score(3e38)
    assert odd.status is ScoreStatus.NOT_FINITE
    assert odd.notes == f"the score is {value}, beyond float32"
    assert failed is FAILED


def test_sum_needs_parts_with_finite_weights():
    with pytest.raises(ConfigError, match="at least one part"):
        Sum({})
    with pytest.raises(ConfigError, match="weight of reward 'x' is nan"):
        Sum({"x": (math.nan, fixed(1))})


@pytest.mark.parametrize(
    ("failed", "of", "allowed", "stops"),
    [
        (0, 8, 0.0, False),
        (1, 8, 0.0, True),
        (2, 8, 0.25, False),
        (3, 8, 0.25, True),
        (4, 8, 0.25, True),
        (7, 8, 1.0, False),
        (8, 8, 1.0, True),
    ],
)
def test_too_many_failures_stop_the_run(failed, of, allowed, stops):
    scores = [FAILED] * failed + [Score(1.0)] * (of - failed)
    if not stops:
        require_scores(scores, allowed)
        return
    with pytest.raises(RewardError, match=f"{failed} of {of} completions.*timeout: no answer"):
        require_scores(scores, allowed)
