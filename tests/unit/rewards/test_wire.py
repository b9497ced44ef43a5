"""What a service may answer, and what becomes of each item then."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.records import Completion, Message, Prompt, Score, ScoreStatus, StopReason
from tutelage.rewards.wire import item_of, match_scores, read_item, score_row

ASKED = Prompt("p", (Message("user", "how are you?"),), reference="fine.", category="small talk")


def ok(item: str, value: object) -> dict[str, object]:
    return {"id": item, "status": "ok", "value": value, "notes": ""}


@given(
    st.dictionaries(st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False)),
    st.randoms(),
)
def test_order_of_the_scores_says_nothing(values, random):
    rows = [score_row(item, Score(value)) for item, value in values.items()]
    random.shuffle(rows)
    received = json.loads(json.dumps(rows))
    assert match_scores(list(values), received) == [Score(value) for value in values.values()]


@given(st.lists(st.sampled_from("abcdxy"), max_size=8))
def test_missing_and_repeated_ids_fail_their_own_items_alone(answered):
    """Each row's value tells which item it was given for: no score is ever another item's."""
    rows = [ok(item, ord(item)) for item in answered]
    for item, score in zip("abcd", match_scores("abcd", rows), strict=True):
        if answered.count(item) == 1:
            assert score == Score(float(ord(item)))
        else:
            assert score.status is ScoreStatus.ERROR
            assert ("no score" if item not in answered else "2 scores") in score.notes or (
                answered.count(item) > 2
            )


@pytest.mark.parametrize(
    ("row", "status"),
    [
        (ok("a", "1.0"), ScoreStatus.ERROR),
        (ok("a", None), ScoreStatus.ERROR),
        (ok("a", True), ScoreStatus.ERROR),
        (ok("a", [1.0]), ScoreStatus.ERROR),
        (ok("a", math.nan), ScoreStatus.NOT_FINITE),
        (ok("a", -math.inf), ScoreStatus.NOT_FINITE),
        (ok("a", 10**400), ScoreStatus.NOT_FINITE),
        (ok("a", 1e308), ScoreStatus.OK),
        (ok("a", 3), ScoreStatus.OK),
        ({"id": "a", "value": 1.0}, ScoreStatus.ERROR),
        ({"id": "a", "value": 1.0, "status": "fine"}, ScoreStatus.ERROR),
        ({"id": "a", "value": 1.0, "status": ["ok"]}, ScoreStatus.ERROR),
        ({"id": "a", "value": 1.0, "status": "timeout"}, ScoreStatus.TIMEOUT),
        ({"id": "a", "status": "unscorable", "notes": "?"}, ScoreStatus.UNSCORABLE),
        ({"id": 7, "status": "ok", "value": 1.0}, ScoreStatus.ERROR),
        ("a", ScoreStatus.ERROR),
        (None, ScoreStatus.ERROR),
    ],
)
def test_what_is_no_score_fails_its_item_alone(row, status):
    odd, fine = match_scores(["a", "b"], [ok("b", 2.0), row])
    assert odd.status is status
    assert fine == Score(2.0)


def test_what_a_service_says_at_length_is_cut():
    (score,) = match_scores(["a"], [{"id": "a", "status": "error", "notes": "x" * 10**6}])
    assert len(score.notes) == 1000


@given(st.text(), st.lists(st.integers(0, 10**6)), st.sampled_from(StopReason))
def test_items_arrive_as_they_were_sent(text, tokens, stop):
    completion = Completion("p", tuple(tokens), (-1.0,) * len(tokens), text, stop)
    prompt, received = read_item(json.loads(json.dumps(item_of(ASKED, completion))))
    assert prompt == ASKED
    assert received == Completion("p", tuple(tokens), (), text, stop)


@pytest.mark.parametrize(
    "change",
    [
        {"text": 7},
        {"text": None},
        {"tokens": "abc"},
        {"tokens": 3},
        {"stop": "never"},
        {"tokens": [1.5]},
    ],
)
def test_row_that_is_no_item_is_refused(change):
    completion = Completion("p", (5,), (-1.0,), "fine.", StopReason.LENGTH)
    row = item_of(ASKED, completion)
    with pytest.raises((TypeError, ValueError)):
        read_item({**row, "completion": {**row["completion"], **change}})
