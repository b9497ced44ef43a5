"""A judge's rating as the reward."""

import pytest

from tutelage.judging import Asker, AskLimits, Budget, EndpointModel, JudgeCache, ModelJudge, Rubric
from tutelage.judging.fake import FakeEndpoint, Spoken, fields_of, prefers
from tutelage.records import Completion, Message, Prompt, ScoreStatus, StopReason
from tutelage.rewards import JudgeReward, ReferenceAnswers

pytest.importorskip("openai")

EASY = Prompt("easy", (Message("user", "how are you?"),))
HARD = Prompt("hard", (Message("user", "what is the meaning of life?"),))


def completion(text: str) -> Completion:
    return Completion("p", (5,), (-1.0,), text, StopReason.STOP_TOKEN)


@pytest.fixture
def judged():
    opened = []

    def by(endpoint, budget=None) -> ModelJudge:
        asker = Asker(
            EndpointModel("fake", endpoint.url, "none"),
            JudgeCache(),
            budget=budget,
            limits=AskLimits(first_pause=0.01),
        )
        opened.append(ModelJudge(asker, Rubric("short", "brief")))
        return opened[-1]

    yield by
    for judge in opened:
        judge.close()


def test_rating_lies_between_minus_one_and_one(judged):
    with FakeEndpoint(prefers(len)) as endpoint:
        scores = JudgeReward(judged(endpoint))(
            [EASY] * 3, [completion("x" * n) for n in (1, 10, 4)]
        )
    # 2 (4 - 1) / 9 - 1
    assert [score.value for score in scores] == pytest.approx([-1.0, 1.0, -1 / 3])


def test_reference_answers_are_taken_off(judged):
    references = ReferenceAnswers(
        [(EASY, [completion("x" * 6), completion("x" * 8)]), (HARD, [completion("xx")])]
    )
    unknown = Prompt("unknown", (Message("user", "?"),))
    with FakeEndpoint(prefers(len)) as endpoint:
        reward = JudgeReward(judged(endpoint), references)
        scores = reward([EASY, HARD, unknown], [completion("x" * 7)] * 3)
        asked = len(endpoint.bodies)
        again = reward([EASY, HARD, unknown], [completion("x" * 7)] * 3)
        assert len(endpoint.bodies) == asked == 3 + 3
    # Seven less the mean of six and eight; seven less two, at 2/9 a grade.
    assert [score.value for score in scores[:2]] == pytest.approx([0.0, 10 / 9])
    assert scores[2].status is ScoreStatus.UNSCORABLE
    assert again[:2] == scores[:2]


def test_rating_that_cannot_be_read_is_a_failed_score(judged):
    def moody(body):
        return Spoken("no") if "bad" in fields_of(body)["answer"] else prefers(len)(body)

    with FakeEndpoint(moody) as endpoint:
        fine, odd = JudgeReward(judged(endpoint))(
            [EASY] * 2, [completion("xxxx"), completion("bad")]
        )
    assert fine.ok
    assert (odd.status, odd.notes) == (ScoreStatus.UNSCORABLE, "unreadable")


def test_budget_that_is_spent_fails_the_rest(judged):
    with FakeEndpoint(prefers(len)) as endpoint:
        reward = JudgeReward(judged(endpoint, Budget(tokens=100)))
        (score,) = reward([EASY], [completion("xxxx")])
        assert endpoint.bodies == []
    assert score.status is ScoreStatus.ERROR
    assert "budget" in score.notes
