"""Verifiers by name, and a verifier as a reward."""

import threading

import pytest

from tutelage.errors import ConfigError
from tutelage.records import Completion, Message, Prompt, Score, ScoreStatus, StopReason
from tutelage.rewards.verifiers import VERIFIERS, VerifierReward, load_verifier, verifier_label


def answered(text: str) -> Completion:
    return Completion("p", (1,), (0.0,), text, StopReason.STOP_TOKEN)


def test_a_name_gives_a_verifier():
    assert {"final_number", "maths", "choice", "exact", "constraints"} <= set(VERIFIERS)
    assert type(load_verifier("final_number")).__name__ == "FinalNumber"
    assert type(load_verifier("regex:[0-9]+:x")).__name__ == "Regex"
    assert verifier_label("regex:[0-9]+:x") == "regex"


@pytest.mark.parametrize("name", ["finalnumber", "final_number:x", "regex", "", ":"])
def test_an_unknown_name_is_refused_with_those_that_there_are(name):
    with pytest.raises(ConfigError, match=r"expected one of final_number, .*, regex:ARGUMENT"):
        load_verifier(name)


def test_a_reward_gives_one_verdict_per_completion(asked):
    reward = VerifierReward(load_verifier("final_number"))
    prompts = [asked("18"), asked("19"), asked()]
    scores = reward(prompts, [answered("#### 18")] * 3)
    assert [score.status for score in scores] == [
        ScoreStatus.OK,
        ScoreStatus.OK,
        ScoreStatus.UNSCORABLE,
    ]
    assert [score.value for score in scores[:2]] == [1.0, 0.0]


class Meeting:
    """Returns only when as many are at it as it takes at once."""

    at_once = 4

    def __init__(self) -> None:
        self.barrier = threading.Barrier(self.at_once, timeout=20)

    def verify(self, prompt: Prompt, text: str) -> Score:
        self.barrier.wait()
        return Score(float(text))


def test_several_answers_are_checked_at_once_and_keep_their_order():
    prompts = [Prompt(str(i), (Message("user", "?"),)) for i in range(8)]
    scores = VerifierReward(Meeting())(prompts, [answered(str(i)) for i in range(8)])
    assert [score.value for score in scores] == list(range(8))
