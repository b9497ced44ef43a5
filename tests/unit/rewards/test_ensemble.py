"""Ensembles of rewards: the three combinations by hand, and what is said of disagreement."""

import numpy as np
import pytest

from tutelage.errors import ConfigError
from tutelage.records import Completion, Message, Prompt, Score, ScoreStatus, StopReason
from tutelage.rewards import EnsembleReward, FunctionReward, Sum, combine_scores

ASKED = Prompt("p", (Message("user", "how are you?"),))


def completion(text: str) -> Completion:
    return Completion("p", (1,), (-1.0,), text, StopReason.STOP_TOKEN)


def member(scores: dict[str, float | None]) -> FunctionReward:
    return FunctionReward(lambda _, answer: scores[answer.text], "member")


@pytest.mark.parametrize(
    ("combine", "expected"),
    [("mean", 2.0), ("min", 0.0), ("uncertainty", 2.0 - 0.5 * 8 / 3)],
)
def test_combinations_by_hand(combine, expected):
    """Scores 0, 2, 4: mean 2, least 0, variance (4 + 0 + 4) / 3."""
    scores = np.array([[0.0], [2.0], [4.0]])
    assert combine_scores(scores, combine, 0.5)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("combine", ["mean", "min", "uncertainty"])
def test_members_that_agree_are_one_member(combine):
    scores = np.array([[1.5, -0.3]] * 4)
    assert combine_scores(scores, combine, 3.0) == pytest.approx([1.5, -0.3], abs=1e-12)


@pytest.mark.parametrize("combine", ["mean", "min", "uncertainty"])
def test_order_of_the_members_and_a_constant_do_not_matter(combine):
    scores = np.random.default_rng(0).normal(size=(4, 7))
    whole = combine_scores(scores, combine)
    assert combine_scores(scores[::-1], combine) == pytest.approx(whole, abs=1e-12)
    assert combine_scores(scores + 3, combine) == pytest.approx(whole + 3, abs=1e-12)


def test_what_one_member_alone_likes_is_chosen_by_the_mean_only():
    """One of four is fooled by 'hack'; the honest answer is a little better to the others."""
    members = [member({"hack": 6.0, "good": 1.0})] + [member({"hack": 0.0, "good": 1.0})] * 3
    answers = [completion("hack"), completion("good")]

    def chosen(combine: str, penalty: float = 0.1) -> str:
        reward = EnsembleReward(members, combine=combine, penalty=penalty)
        scores = [score.value for score in reward([ASKED] * 2, answers)]
        return answers[scores.index(max(scores))].text

    assert chosen("mean") == "hack"
    assert chosen("min") == "good"
    assert chosen("uncertainty", 0.5) == "good"
    assert chosen("uncertainty", 0.0) == "hack"


def test_disagreement_is_known_of_every_sample_and_passes_through_a_sum():
    ensemble = EnsembleReward([member({"x": 1.0}), member({"x": 3.0})], combine="min")
    (score,) = Sum({"model": (2.0, ensemble)})([ASKED], [completion("x")])
    assert (score.value, score.parts) == (2.0, {"model": 2.0})
    assert score.measures == {"members": 2.0, "disagreement": 1.0}


def test_a_sample_that_one_member_cannot_score_is_not_scored():
    ensemble = EnsembleReward([member({"x": 1.0}), member({"x": None})])
    (score,) = ensemble([ASKED], [completion("x")])
    assert score.status is ScoreStatus.UNSCORABLE
    assert "member 1" in score.notes


def test_one_member_is_no_ensemble():
    with pytest.raises(ConfigError, match="two reward models at least"):
        EnsembleReward([member({})])


def test_measures_are_averaged_over_the_turns_of_a_conversation():
    from tutelage.rewards.conversation import ConversationReward

    class Known:
        def __call__(self, prompts, completions):
            return [Score(1.0, measures={"disagreement": 0.5})] * len(completions)

    (score,) = ConversationReward(Known())([ASKED], [completion("x")])
    assert score.measures == {"disagreement": 0.5}
