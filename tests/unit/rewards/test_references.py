"""Rewards against the reference's answers: the bound, and a threshold for each prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.records import Completion, Message, Prompt, Score, ScoreStatus, StopReason
from tutelage.rewards import AgainstReferences, LengthPenaltyByPrompt, ReferenceAnswers

ASKED = Prompt("p", (Message("user", "how are you?"),))
OTHER = Prompt("q", (Message("user", "who are you?"),))
FAILED = Score.failed(ScoreStatus.UNSCORABLE, "no number")
reals = st.floats(-50, 50)


def completion(text: str, tokens: int = 1) -> Completion:
    return Completion("p", (5,) * tokens, (-1.0,) * tokens, text, StopReason.STOP_TOKEN)


class Reading:
    """Scores a completion by the number it says; counts how many it read."""

    def __init__(self):
        self.read = 0

    def __call__(self, prompts, completions):
        self.read += len(completions)
        return [FAILED if c.text == "?" else Score(float(c.text)) for c in completions]


def against(references, reward=None):
    answers = ReferenceAnswers([(ASKED, [completion(str(r)) for r in references])])
    return AgainstReferences(reward or Reading(), answers)


def bounded(references, *scores):
    found = against(references)([ASKED] * len(scores), [completion(str(s)) for s in scores])
    return [score.value for score in found]


def test_difference_goes_through_the_sigmoid_before_the_mean():
    # 1/2 [σ(2 - 0) + σ(2 - 3)] = 1/2 [0.880797 + 0.268941]
    assert bounded([0.0, 3.0], 2.0) == pytest.approx([0.574869], abs=1e-6)


def test_what_is_as_good_as_the_reference_is_worth_a_half():
    assert bounded([1.5, 1.5], 1.5) == [0.5]


@given(st.lists(reals, min_size=1, max_size=5), reals, reals, reals)
def test_order_is_kept_and_the_level_of_the_scores_says_nothing(references, a, b, level):
    low, high = sorted(bounded(references, a, b))
    assert 0.0 <= low <= high <= 1.0
    assert (bounded(references, min(a, b)), bounded(references, max(a, b))) == ([low], [high])
    moved = bounded([r + level for r in references], a + level)
    # Adding a level to numbers of 50 costs digits.
    assert moved == pytest.approx(bounded(references, a), abs=1e-9)


@pytest.mark.parametrize("score", [1e30, -1e30])
def test_extreme_scores_are_bounded_without_overflow(score):
    assert bounded([0.0], score) == [float(score > 0)]


def test_references_are_scored_once_in_a_run():
    reward = Reading()
    shaped = against([0.0, 1.0], reward)
    shaped([ASKED, ASKED], [completion("2"), completion("3")])
    assert reward.read == 2 + 2
    shaped([ASKED], [completion("2")])
    assert reward.read == 2 + 2 + 1


def test_prompt_without_a_scored_reference_is_unscorable_alone():
    answers = ReferenceAnswers([(ASKED, [completion("?"), completion("0")])])
    shaped = AgainstReferences(Reading(), answers)
    fine, odd, failed = shaped(
        [ASKED, OTHER, ASKED], [completion("0"), completion("0"), completion("?")]
    )
    assert fine.value == 0.5
    assert odd.status is ScoreStatus.UNSCORABLE
    assert odd.notes == "the prompt has no answer of the reference that could be scored"
    assert failed is FAILED


def test_same_question_under_another_id_is_the_same_prompt():
    answers = ReferenceAnswers([(ASKED, [completion("0")])])
    same = Prompt("another id", ASKED.messages)
    assert [each.text for each in answers.of(same)] == ["0"]
    assert answers.of(OTHER) == ()


def penalty(lengths, quantile=0.9, threshold=4):
    answers = ReferenceAnswers([(ASKED, [completion("", n) for n in lengths])])
    return LengthPenaltyByPrompt(0.5, answers, quantile, threshold)


def test_each_prompt_has_a_threshold_of_its_own():
    reward = penalty([10, 2, 6])
    found = reward([ASKED, ASKED, OTHER, OTHER], [completion("", n) for n in (10, 13, 4, 6)])
    assert [score.value for score in found] == [0.0, -1.5, 0.0, -1.0]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.floats(0, 1))
def test_threshold_is_the_smallest_length_that_the_share_does_not_exceed(lengths, quantile):
    threshold = penalty(lengths, quantile).threshold_of(ASKED)
    enough = [n for n in lengths if sum(m <= n for m in lengths) >= quantile * len(lengths)]
    assert threshold == min(enough)
