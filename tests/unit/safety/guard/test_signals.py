"""A judge as a signal: probabilities against the first answers, with positions cancelled."""

from tutelage.records import Completion, Message, Prompt, StopReason
from tutelage.safety.guard import AgainstFirst

PROMPTS = [Prompt("p", (Message("user", "which?"),))] * 3


def answers(*texts: str) -> list[Completion]:
    return [Completion("p", (1,), (-1.0,), text, StopReason.STOP_TOKEN) for text in texts]


def longer_and_first(comparisons):
    """Prefers the longer text, and is fond of what it reads first."""
    return [
        None
        if "?" in c.a + c.b
        else 0.5 + 0.1 + 0.2 * (len(c.a) > len(c.b)) - 0.2 * (len(c.a) < len(c.b))
        for c in comparisons
    ]


def test_score_is_the_probability_of_being_better_than_the_first_answer():
    signal = AgainstFirst(longer_and_first, ["same", "short", "long answer"])
    scores = signal(PROMPTS, answers("same", "much longer", "tiny"))
    assert [round(score.value, 6) for score in scores] == [0.5, 0.7, 0.3]


def test_what_the_judge_cannot_tell_has_no_score():
    scores = AgainstFirst(longer_and_first, ["a", "b", "c"])(PROMPTS, answers("?", "b", "c"))
    assert [score.ok for score in scores] == [False, True, True]
