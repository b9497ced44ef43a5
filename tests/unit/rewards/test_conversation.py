"""Scores of conversations: which answer is scored with what before it, and how they add up."""

from dataclasses import replace

import pytest

from tutelage.records import (
    Completion,
    Message,
    Prompt,
    Score,
    ScoreStatus,
    StopReason,
    Turn,
)
from tutelage.rewards import ConversationReward, FunctionReward, LengthPenalty, Sum

PROMPT = Prompt("p", (Message("user", "count"),))
STOP = StopReason.STOP_TOKEN
TALK = Completion(
    "p",
    (5, 6, 9, 9, 9, 7),
    (-1.0, -2.0, 0.0, 0.0, 0.0, -3.0),
    "transcript",
    STOP,
    turns=(
        Turn(0, 2, "one two", STOP, (Message("user", "and?"),), reward=0.5),
        Turn(5, 6, "three", StopReason.LENGTH, (), reward=0.25),
    ),
)
ALONE = Completion("p", (5, 6, 7), (-1.0, -1.0, -1.0), "one two three", STOP)


def words(prompt: Prompt, completion: Completion) -> float:
    return float(len(completion.text.split()))


def test_every_answer_is_scored_with_the_conversation_before_it():
    seen = []

    def reward(prompts, completions):
        seen.extend(zip(prompts, completions, strict=True))
        return [Score(0.0)] * len(prompts)

    ConversationReward(reward)([PROMPT, PROMPT], [TALK, ALONE])
    assert [[m.content for m in prompt.messages] for prompt, _ in seen] == [
        ["count"],
        ["count", "one two", "and?"],
        ["count"],
    ]
    assert [(c.text, c.tokens, c.logprobs, c.stop) for _, c in seen[:2]] == [
        ("one two", (5, 6), (-1.0, -2.0), STOP),
        ("three", (7,), (-3.0,), StopReason.LENGTH),
    ]
    assert seen[2][1] == ALONE


def test_turns_and_parts_add_up():
    reward = Sum(
        {"words": (1.0, FunctionReward(words, "words")), "length": (2.0, LengthPenalty(0.5, 1))}
    )
    (talk, alone) = ConversationReward(reward)([PROMPT, PROMPT], [TALK, ALONE])
    # words 2 + 1, length 2 * -0.5 * (2 - 1) for the first answer, environment 0.5 + 0.25
    assert talk.turns == (2.0 - 1.0 + 0.5, 1.0 + 0.25)
    assert talk.value == pytest.approx(2.75)
    assert talk.parts == {"words": 3.0, "length": -1.0, "environment": 0.75}
    assert alone.value == 3.0 - 2.0
    assert alone.turns == (1.0,)


def test_the_last_answer_alone_is_scored_where_that_is_asked_for():
    (score,) = ConversationReward(FunctionReward(words, "words"), "last")([PROMPT], [TALK])
    assert score.turns == (0.5, 1.0 + 0.25)
    assert score.value == pytest.approx(1.75)


def test_without_a_reward_the_environment_says_what_a_turn_is_worth():
    (score,) = ConversationReward(None)([PROMPT], [TALK])
    assert (score.value, score.turns) == (0.75, (0.5, 0.25))


def test_one_answer_that_cannot_be_scored_fails_its_conversation_alone():
    def fails_on_three(prompt, completion):
        return None if completion.text == "three" else 1.0

    talk, alone = ConversationReward(FunctionReward(fails_on_three, "f"))(
        [PROMPT] * 2, [TALK, ALONE]
    )
    assert talk.status is ScoreStatus.UNSCORABLE
    assert alone.ok


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        (replace(TALK, failure="it raised"), ScoreStatus.ERROR),
        (
            replace(TALK, turns=(replace(TALK.turns[0], reward=float("nan")),)),
            ScoreStatus.NOT_FINITE,
        ),
    ],
)
def test_an_environment_that_fails_is_no_zero(broken, status):
    (score,) = ConversationReward(FunctionReward(words, "words"))([PROMPT], [broken])
    assert score.status is status
