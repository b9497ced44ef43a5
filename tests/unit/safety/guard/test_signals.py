"""A judge as a signal: probabilities against the first answers, with positions cancelled; and a
reward model, without what it pays for length."""

from dataclasses import replace

from tutelage.records import Completion, Message, Prompt, Score, ScoreStatus, StopReason, Turn
from tutelage.safety.guard import AgainstFirst, AtEqualLength

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


def test_what_a_score_owes_to_the_tokens_that_the_policy_wrote_is_taken_off():
    short, long = (
        Completion("p", (1,) * count, (-1.0,) * count, "text", StopReason.STOP_TOKEN)
        for count in (2, 9)
    )
    turns = tuple(Turn(*span, "text", StopReason.STOP_TOKEN) for span in ((0, 3), (5, 9)))
    in_turns = replace(long, turns=turns)
    failed = Score.failed(ScoreStatus.UNSCORABLE, "too long")
    given = [Score(1.0), Score(1.0), Score(1.0), failed]
    signal = AtEqualLength(lambda prompts, completions: given, 0.5)
    scores = signal([PROMPTS[0]] * 4, [short, long, in_turns, long])
    assert [score.value for score in scores[:3]] == [0.0, -3.5, -2.5]
    assert scores[3] is failed


def test_what_a_reward_charges_for_length_is_left():
    given = [Score(1.0)]
    signal = AtEqualLength(lambda prompts, completions: given, -0.5)
    assert signal([PROMPTS[0]], answers("much longer")) == given
