"""Records survive a trip through JSON, and say what they are."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.records import (
    Comparison,
    Completion,
    Demonstration,
    Message,
    Preference,
    Prompt,
    Score,
    ScoreStatus,
    StopReason,
    Turn,
    exchanges,
)

text = st.text(max_size=20)
names = st.text(min_size=1, max_size=8)
messages = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), text),
    min_size=1,
    max_size=3,
).map(tuple)
prompts = st.builds(
    Prompt,
    names,
    messages,
    source=text,
    category=text,
    reference=st.none() | text,
    mode=st.sampled_from(["chat", "continuation"]),
)
comparisons = st.builds(Comparison, prompts, a=text, b=text, id=names)
preferences = st.builds(
    Preference,
    comparisons,
    p_a=st.floats(0, 1),
    annotator=names,
    kind=st.sampled_from(["human", "ai", "verifier", "synthetic"]),
    rationale=text,
    seconds=st.none() | st.floats(0, 1e3),
    created=text,
    round=st.integers(0, 9),
    orders=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    confidence=st.none() | st.floats(0, 1),
    criteria=st.dictionaries(names, st.floats(0, 1), max_size=2),
    instructions=text,
)
turns = st.builds(
    Turn,
    start=st.integers(0, 9),
    end=st.integers(0, 9),
    text=text,
    stop=st.sampled_from(StopReason),
    reply=messages,
    reward=st.floats(-9, 9),
)
completions = st.integers(0, 5).flatmap(
    lambda n: st.builds(
        Completion,
        names,
        tokens=st.tuples(*[st.integers(0, 99)] * n),
        logprobs=st.tuples(*[st.floats(-30, 0)] * n),
        text=text,
        stop=st.sampled_from(StopReason),
        policy_version=st.integers(0, 9),
        engine=text,
        turns=st.lists(turns, max_size=2).map(tuple),
        failure=text,
    )
)
demonstrations = st.builds(Demonstration, names, messages, source=text, category=text)


@given(st.one_of(prompts, comparisons, preferences, completions, demonstrations))
def test_records_come_back_from_json_as_they_went(record):
    assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


@given(preferences)
def test_swapping_exchanges_the_answers_and_the_probability(preference):
    swapped = preference.swap()
    assert (swapped.comparison.a, swapped.comparison.b) == (
        preference.comparison.b,
        preference.comparison.a,
    )
    assert swapped.p_a + preference.p_a == pytest.approx(1, abs=1e-12)
    assert swapped.comparison.swap() == preference.comparison


def test_swapping_exchanges_the_orders_of_showing():
    comparison = Comparison(Prompt("p", (Message("user", "hi"),)), "a", "b")
    judged = Preference(comparison, 0.6, "j", orders=(0.75, 0.5), criteria={"honest": 0.25})
    swapped = judged.swap()
    # `b` was shown first where `a` was second: there it had 1 - 0.5.
    assert swapped.orders == (0.5, 0.25)
    assert swapped.criteria == {"honest": 0.75}
    assert hash(swapped) == hash(judged.swap())


@pytest.mark.parametrize(
    "doubtful", [{"orders": (0.5, 1.5)}, {"confidence": -0.1}, {"criteria": {"honest": math.nan}}]
)
def test_what_is_said_beside_the_label_lies_in_the_unit_interval_too(doubtful):
    comparison = Comparison(Prompt("p", (Message("user", "hi"),)), "a", "b")
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        Preference(comparison, 0.5, "someone", **doubtful)


@pytest.mark.parametrize("p_a", [-0.01, 1.01, math.nan])
def test_label_outside_the_unit_interval_is_refused(p_a):
    comparison = Comparison(Prompt("p", (Message("user", "hi"),)), "a", "b")
    with pytest.raises(ValueError, match="probability in"):
        Preference(comparison, p_a, "someone")


@pytest.mark.parametrize(
    ("feedback", "kind"),
    [("human", "human"), ("ai-gpt", "ai"), ("verifier", "verifier"), (None, "human")],
)
def test_public_rows_prefer_the_chosen_answer(feedback, kind):
    row = {
        "id": "7",
        "prompt": [{"role": "user", "content": "hi"}],
        "chosen": "good",
        "rejected": "bad",
        "feedback": feedback,
    }
    preference = Preference.from_json(row)
    assert (preference.comparison.a, preference.comparison.b) == ("good", "bad")
    assert (preference.p_a, preference.kind) == (1.0, kind)


def test_failed_score_has_no_number():
    score = Score.failed(ScoreStatus.ERROR, "service down")
    assert math.isnan(score.value)
    assert not score.ok
    assert score.notes == "service down"


def test_text_of_a_prompt_is_what_is_answered():
    prompt = Prompt(
        "p", (Message("user", "one"), Message("assistant", "x"), Message("user", "two"))
    )
    assert prompt.text == "two"


@pytest.mark.parametrize(("stop", "truncated"), [("stop_token", False), ("length", True)])
def test_only_the_token_limit_truncates(stop, truncated):
    assert Completion("p", (1,), (-0.1,), "x", StopReason(stop)).truncated is truncated


TURNS = (
    Turn(0, 2, "one", StopReason.STOP_TOKEN, (Message("user", "and?"), Message("user", "so?"))),
    Turn(5, 6, "two", StopReason.STOP_TOKEN, (Message("user", "unread"),)),
)


def test_what_a_completion_of_several_turns_has_written():
    tokens = Completion("p", (1,) * 6, (0.0,) * 6, "", StopReason.STOP_TOKEN, turns=TURNS)
    assert tokens.written == (True, True, False, False, False, True)
    assert Completion("p", (1, 2), (0.0,) * 2, "", StopReason.STOP_TOKEN).written == (True, True)


def test_each_answer_has_the_conversation_so_far_as_its_prompt():
    prompt = Prompt("p", (Message("user", "count"),), category="numbers")
    first, second = exchanges(prompt, TURNS)
    assert first == (prompt, TURNS[0])
    assert second[1] is TURNS[1]
    assert second[0].category == "numbers"
    assert [(m.role, m.content) for m in second[0].messages] == [
        ("user", "count"),
        ("assistant", "one"),
        ("user", "and?"),
        ("user", "so?"),
    ]


def test_what_a_verifier_reads_survives_the_way_to_disk_and_back():
    row = {
        "id": "p",
        "prompt": [{"role": "user", "content": "?"}],
        "choices": {"A": "yes", "B": "no"},
        "answer": "A",
        "unknown": 1,
    }
    prompt = Prompt.from_json(row)
    assert prompt.check == {"choices": {"A": "yes", "B": "no"}}
    assert Prompt.from_json(prompt.to_json()) == prompt
    assert hash(prompt) == hash(Prompt("p", prompt.messages))
