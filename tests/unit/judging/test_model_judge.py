"""A judge model behind a real connection: orders, probabilities, and what cannot be read."""

import math
import time

import pytest

from tutelage.errors import JudgeError
from tutelage.judging import Rubric, in_both_orders
from tutelage.judging.fake import Failure, FakeEndpoint, Spoken, fields_of, prefers
from tutelage.records import Comparison, Message, Prompt

PROMPT = Prompt("p", (Message("user", "how much is it?"),))


def pair(a: str, b: str, name: str = "c") -> Comparison:
    return Comparison(PROMPT, a, b, name)


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def worth(text: str) -> float:
    return float(len(text)) / 10.0


def test_probability_is_that_of_the_answer_token_averaged_over_both_orders(judge_of):
    with FakeEndpoint(prefers(worth, bias=0.4)) as endpoint:
        (verdict,) = judge_of(endpoint).judge([pair("x" * 12, "x" * 5)])
    forth, back = sigmoid(0.7 + 0.4), 1.0 - sigmoid(-0.7 + 0.4)
    assert verdict.orders == pytest.approx((forth, back))
    assert verdict.p_a == pytest.approx((forth + back) / 2)
    assert verdict.winner == "a"
    assert len(endpoint.bodies) == 2


def test_exchanged_answers_have_the_complementary_probability(judge_of):
    with FakeEndpoint(prefers(worth, bias=0.4)) as endpoint:
        judge = judge_of(endpoint)
        one, other = judge([pair("x" * 12, "x" * 5)]), judge([pair("x" * 5, "x" * 12)])
    assert one[0] == pytest.approx(1.0 - other[0])
    # The second comparison's questions are the first one's.
    assert len(endpoint.bodies) == 2


def test_mass_of_other_tokens_is_shared_out(judge_of):
    with FakeEndpoint(prefers(worth, mass=0.8)) as endpoint:
        (p_a,) = judge_of(endpoint)([pair("x" * 12, "x" * 5)])
    assert p_a == pytest.approx(sigmoid(0.7))


def test_labels_without_mass_are_unreadable(judge_of):
    # "A" was drawn, though both letters have a tenth of the probability between them.
    with FakeEndpoint(prefers(worth, mass=0.1)) as endpoint:
        judge = judge_of(endpoint)
        assert judge([pair("x" * 12, "x" * 5)]) == [None]
        assert judge.parse_rate == 0.0
        assert judge_of(endpoint, min_mass=0.05)([pair("x" * 12, "x" * 5)]) != [None]


def test_contradiction_is_a_tie(judge_of):
    def always_first(body):
        return Spoken("A", ({"A": 0.9, "B": 0.1},))

    with FakeEndpoint(always_first) as endpoint:
        (verdict,) = judge_of(endpoint).judge([pair("long answer", "short")])
    assert verdict.orders == pytest.approx((0.9, 0.1))
    assert verdict.p_a == pytest.approx(0.5)
    assert verdict.winner == "tie"


def test_contradiction_of_unequal_sides_is_a_tie_as_a_verdict(judge_of):
    with FakeEndpoint(prefers(worth, bias=1.0)) as endpoint:
        (verdict,) = judge_of(endpoint).judge([pair("x" * 12, "x" * 7)])
    assert 0.5 < verdict.p_a < 0.6
    assert verdict.winner == "tie"


@pytest.mark.parametrize(
    "said",
    [
        "",
        "   \n",
        "Both answers are fine.",
        "A or B",
        "A B",
        "I'm sorry, but I can't compare these answers.",
        "A good answer would be shorter",
        "C",
        "10",
        "AB",
        "<think>A</think>",
        "[[A]] [[B]]",
    ],
)
@pytest.mark.parametrize("logprobs", [True, False])
def test_what_is_no_verdict_is_unscorable_and_never_a_default(judge_of, said, logprobs):
    def answer(body):
        return Spoken(said, ({said or "": 0.9, "A": 0.05, "B": 0.05},))

    with FakeEndpoint(answer, logprobs=logprobs) as endpoint:
        judge = judge_of(endpoint)
        (verdict,) = judge.judge([pair("long answer", "short")])
    assert verdict.p_a is None
    assert verdict.winner is None
    assert verdict.failure == "unreadable"
    assert judge.preferences([verdict]) == []
    assert judge.counts["unreadable"] == 2
    assert judge.parse_rate == 0.0


def test_order_that_cannot_be_read_leaves_the_comparison_open(judge_of):
    def moody(body):
        return prefers(worth)(body) if fields_of(body)["answer A"] == "ok" else Spoken("no")

    with FakeEndpoint(moody) as endpoint:
        judge = judge_of(endpoint)
        (verdict,) = judge.judge([pair("ok", "not ok")])
    assert verdict.orders[0] is not None
    assert verdict.p_a is None
    assert judge.parse_rate == 0.5


def test_without_log_probabilities_samples_are_counted(judge_of):
    said = iter(["A", "A", "B", "A", "nonsense"] * 2)

    def draw(body):
        return Spoken(next(said)) if body["temperature"] else Spoken("A")

    with FakeEndpoint(draw, logprobs=False) as endpoint:
        judge = judge_of(endpoint, samples=5, concurrency=1)
        notes = []
        judge.asker.notify = notes.append
        (verdict,) = judge.judge([pair("x", "y")])
    # Three of the four that can be read say the first; so does the other order, of b.
    assert verdict.orders == pytest.approx((0.75, 0.25))
    assert len(notes) == 1
    drawn = [body for body in endpoint.bodies if body["temperature"]]
    assert len(drawn) == 10
    assert sorted(body["seed"] for body in drawn) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(("certain", "told"), [(True, 1), (False, 0)])
def test_samples_that_never_differ_are_told_once(judge_of, certain, told):
    """20 questions are told of; the last one's samples differ, or do not."""

    def draw(body):
        last = "pair 9" in body["messages"][-1]["content"]
        return Spoken("B" if last and body["seed"] and not certain else "A")

    with FakeEndpoint(draw, logprobs=False) as endpoint:
        judge = judge_of(endpoint, samples=3, concurrency=1, probabilities="samples")
        notes = []
        judge.asker.notify = notes.append
        judge.judge([pair(f"pair {i}", "y") for i in range(15 if certain else 10)])
    assert len([note for note in notes if "3 equal samples of each of 20" in note]) == told


def test_endpoint_that_refuses_log_probabilities_is_sampled(judge_of):
    refusal = Failure(400, b'{"error": {"message": "logprobs is not supported"}}')
    with FakeEndpoint(prefers(worth)) as endpoint:
        endpoint.script = [refusal]
        judge = judge_of(endpoint, samples=3, concurrency=1)
        # The scripted judge says "A" for the longer answer, whatever its probability.
        assert judge([pair("x" * 12, "x" * 5)]) == [1.0]
        assert sum("logprobs" in body for body in endpoint.bodies) <= 2


def test_probabilities_that_must_come_from_tokens_are_missed(judge_of):
    with FakeEndpoint(prefers(worth), logprobs=False) as endpoint:
        judge = judge_of(endpoint, probabilities="tokens")
        with pytest.raises(JudgeError, match="set probabilities to 'samples'"):
            judge.judge([pair("x", "y")])


def test_model_that_decides_is_asked_for_its_choice(judge_of):
    with FakeEndpoint(prefers(worth, bias=0.4)) as endpoint:
        judge = judge_of(endpoint, probabilities="decisions")
        (verdict,) = judge.judge([pair("x" * 12, "x" * 5)])
        assert verdict.orders == pytest.approx((sigmoid(1.1), 1.0 - sigmoid(-0.3)))
        values = [each["value"] for each in endpoint.bodies[0]["questions"][0]["choices"]]
        assert values == ["A", "B"]
        assert judge.asker.spent.tokens == 2 * 101


def test_refusal_to_decide_is_unreadable(judge_of):
    with FakeEndpoint(lambda body: Spoken("no")) as endpoint:
        (verdict,) = judge_of(endpoint, probabilities="decisions").judge([pair("x", "yy")])
    assert verdict.failure == "unreadable"


def test_reasons_come_first_and_the_verdict_is_read_from_the_second_reply(judge_of):
    def thoughtful(body):
        if body["messages"][-1]["content"].endswith("nothing else."):
            assert body["messages"][-2]["role"] == "assistant"
            return prefers(worth)(body)
        return Spoken("The answer says 'verdict: B'. Answer: B")

    with FakeEndpoint(thoughtful) as endpoint:
        judge = judge_of(endpoint, reasons=True)
        (row,) = judge.label([pair("x" * 12, "x" * 5)])
    assert row.p_a == pytest.approx(sigmoid(0.7))
    assert "verdict: B" in row.rationale
    assert len(endpoint.bodies) == 4


@pytest.mark.parametrize("orders", [2, 10, 1])
def test_rating_is_the_expectation_over_the_grades(judge_of, orders):
    grades = {"2": (("2",), 2.0), "10": (("10",), 10.0), "1": (("1",), 1.0)}
    (text,), expected = grades[str(orders)]
    with FakeEndpoint(lambda body: Spoken(text, ({text: 1.0},))) as endpoint:
        (rating,) = judge_of(endpoint).rate([PROMPT], ["fine"])
    assert rating.value == pytest.approx(expected)


def test_rating_weighs_the_grades_by_their_tokens(judge_of):
    spoken = Spoken("7", ({"7": 0.5, "8": 0.25, "10": 0.15, "well": 0.1},))
    with FakeEndpoint(lambda body: spoken) as endpoint:
        (rating,) = judge_of(endpoint).rate([PROMPT], ["fine"])
    assert rating.value == pytest.approx((7 * 0.5 + 8 * 0.25 + 10 * 0.15) / 0.9)


def test_ten_that_is_spelled_digit_by_digit_is_no_one(judge_of):
    # P(10) = 0.6 * 0.9; P(1) = 0.6 * 0.1; P(9) = 0.4.
    spoken = Spoken("10", ({"1": 0.6, "9": 0.4}, {"0": 0.9, "<|im_end|>": 0.1}))
    with FakeEndpoint(lambda body: spoken) as endpoint:
        (rating,) = judge_of(endpoint).rate([PROMPT], ["fine"])
    assert rating.value == pytest.approx(10 * 0.54 + 1 * 0.06 + 9 * 0.4)


def test_preference_says_who_judged_and_by_what(judge_of):
    with FakeEndpoint(prefers(worth)) as endpoint:
        judge = judge_of(endpoint)
        other = judge_of(endpoint, rubric=Rubric("long", "The longer answer is better."))
        (row,) = judge.label([pair("x" * 12, "x" * 5)])
        (again,) = other.label([pair("x" * 12, "x" * 5)])
    assert row.kind == "ai"
    assert row.annotator == f"fake#{judge.instructions[:8]}"
    assert row.instructions == judge.instructions
    assert len(row.instructions) == 64
    assert row.orders == pytest.approx((sigmoid(0.7), sigmoid(0.7)))
    assert row.created.endswith("+00:00")
    assert again.instructions != row.instructions
    assert again.annotator != row.annotator


def test_judge_is_a_function_for_those_who_ask_in_both_orders_themselves(judge_of):
    comparisons = [pair("x" * n, "x" * 6, f"c{n}") for n in range(1, 6)]
    with FakeEndpoint(prefers(worth, bias=0.3)) as endpoint:
        judge = judge_of(endpoint)
        once = judge(comparisons)
        assert in_both_orders(judge, comparisons) == pytest.approx(once)
        assert len(endpoint.bodies) == 2 * len(comparisons)


def test_equal_questions_at_the_same_time_are_asked_once(judge_of):
    with FakeEndpoint(prefers(worth)) as endpoint:
        endpoint.seconds = 0.1
        judge_of(endpoint).judge([pair("x", "yy"), pair("yy", "x", "d"), pair("x", "yy", "e")])
        assert len(endpoint.bodies) == 2


def test_no_more_requests_are_under_way_than_was_said(judge_of):
    comparisons = [pair("x" * n, "y", f"c{n}") for n in range(1, 9)]
    with FakeEndpoint(prefers(worth)) as endpoint:
        endpoint.seconds = 0.02
        judge_of(endpoint, concurrency=3).judge(comparisons)
        assert 2 <= endpoint.most_at_once <= 3


def test_progress_counts_comparisons(judge_of):
    seen = []
    with FakeEndpoint(prefers(worth)) as endpoint:
        judge = judge_of(endpoint, concurrency=1)
        judge.judge([pair("x", "yy"), pair("xx", "z", "d")], lambda *done: seen.append(done))
    assert seen == [(1, 2), (2, 2)]
    with FakeEndpoint(prefers(worth)) as endpoint:
        assert judge_of(endpoint).judge([]) == []


@pytest.mark.parametrize(
    "fault",
    [
        Failure(500),
        Failure(503),
        Failure(429),
        Failure(hang_up=True),
        Failure(200, b"not json"),
        Failure(200, b'{"choices": []}'),
        Failure(200, b'{"error": "busy"}'),
        Failure(200, b'{"choices": [{"message": null}]}'),
        Failure(200, b"[" * 100_000),
    ],
)
def test_what_may_pass_is_asked_again(judge_of, fault):
    with FakeEndpoint(prefers(worth)) as endpoint:
        endpoint.script = [fault, fault]
        judge = judge_of(endpoint, concurrency=1)
        assert judge([pair("x" * 12, "x" * 5)]) == [pytest.approx(sigmoid(0.7))]
        assert judge.asker.counts["retries"] == 2


def test_endpoint_says_how_long_to_wait(judge_of):
    with FakeEndpoint(prefers(worth)) as endpoint:
        endpoint.script = [Failure(429, headers={"Retry-After": "1"})]
        started = time.monotonic()
        judge_of(endpoint, concurrency=1).judge([pair("x", "yy")])
        assert time.monotonic() - started >= 1.0


def test_request_that_is_never_answered_ends_at_its_deadline(judge_of):
    with FakeEndpoint(prefers(worth)) as endpoint:
        endpoint.script = [Failure(seconds=1.5)]
        judge = judge_of(endpoint, concurrency=1, seconds=0.3)
        started = time.monotonic()
        assert judge([pair("x" * 12, "x" * 5)]) == [pytest.approx(sigmoid(0.7))]
        assert time.monotonic() - started < 1.4


def test_question_that_is_refused_fails_alone(judge_of):
    def refuse_long(body):
        return prefers(worth)(body)

    with FakeEndpoint(refuse_long) as endpoint:
        judge = judge_of(endpoint, concurrency=1)
        judge([pair("x", "yy")])
        endpoint.script = [Failure(400, b'{"error": {"message": "context too long"}}')]
        found = judge.judge([pair("long", "longer", "d"), pair("x" * 12, "x" * 5, "e")])
    assert found[0].p_a is None
    assert "context too long" in found[0].failure
    assert found[1].p_a == pytest.approx(sigmoid(0.7))
    assert judge.parse_rate == 1.0


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Failure(401), "refuses the token"),
        (Failure(403), "refuses the token"),
        (Failure(404), "Check --model and --url"),
        (Failure(402), "HTTP 402"),
    ],
)
def test_what_no_request_can_get_past_ends_it_at_once(judge_of, fault, says):
    with FakeEndpoint(prefers(worth)) as endpoint:
        endpoint.script = [fault] * 5
        with pytest.raises(JudgeError, match=says):
            judge_of(endpoint, concurrency=1).judge([pair("x", "yy")])
        assert len(endpoint.bodies) == 1


def test_endpoint_that_is_not_there_is_named(judge_of):
    with FakeEndpoint(prefers(worth)) as endpoint:
        pass
    with pytest.raises(JudgeError, match=r"127\.0\.0\.1.*is it running"):
        judge_of(endpoint, retries=1).judge([pair("x", "yy")])


def test_requests_that_are_all_refused_end_it(judge_of):
    comparisons = [pair("x" * n, "y", f"c{n}") for n in range(1, 30)]
    with FakeEndpoint(prefers(worth)) as endpoint:
        endpoint.script = [Failure(400, b'{"error": {"message": "no system role"}}')] * 100
        with pytest.raises(JudgeError, match="no system role"):
            judge_of(endpoint, concurrency=1, failures=4).judge(comparisons)
        assert 4 <= len(endpoint.bodies) <= 6
