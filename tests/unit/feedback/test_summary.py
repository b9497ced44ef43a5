"""The summary of a small store, counted by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.feedback import Event, PreferenceStore
from tutelage.feedback.summary import PairAgreement, Summary, summarize
from tutelage.records import Comparison, Message, Preference, Prompt


def judged(number: int, p_a: float, annotator: str = "ann", **changes: Any) -> Preference:
    prompt = Prompt(f"p{number}", (Message("user", f"Question {number}?"),), source="shop")
    comparison = Comparison(prompt, "the long one", "short", f"p{number}/0-1")
    return replace(Preference(comparison, p_a, annotator), **changes)


def renamed(preference: Preference, name: str) -> Preference:
    return replace(preference, comparison=replace(preference.comparison, id=name))


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    with PreferenceStore(tmp_path / "labels.db") as store:
        store.add([judged(1, 1.0), judged(2, 0.0), judged(3, 0.5), judged(4, 1.0)])
        # Bob agrees on 1, contradicts on 2, and the judge changes with the order on 4.
        store.add([judged(1, 0.9, "bob"), judged(2, 1.0, "bob"), judged(3, 0.5, "bob")])
        store.add(
            [
                judged(4, 0.6, "judge", kind="ai", round=1, orders=(0.9, 0.3)),
                judged(5, 0.8, "judge", kind="ai", round=1, orders=(0.9, 0.7)),
            ]
        )
        # Ann says the opposite of 1, shown the other way round, and of 2 under other ids.
        store.add([renamed(judged(1, 0.0).swap(), "again"), renamed(judged(2, 1.0), "opposite")])
        store.record(Event.judgement(judged(4, 0.0)))
        store.record(Event("p6/0-1", "eve", "skipped"))
        store.record(Event("p6/0-1", "eve", "flagged"))
        return summarize(store)


def test_counts(summary: Summary) -> None:
    assert (summary.preferences, summary.comparisons) == (11, 5)
    assert summary.sources == {"shop": 11}
    assert summary.kinds == {"human": 9, "ai": 2}
    assert summary.rounds == {"0": 9, "1": 2}
    assert summary.ties == 2
    assert summary.judged_by_several == 4


def test_contradictions_and_duplicates(summary: Summary) -> None:
    # "again" is for the answer that Ann was against in 1.
    assert summary.duplicates == 0
    # 1 and 2 by Ann herself, 4 by Ann's new mind against the judge's.
    assert (summary.contradictions, summary.own_contradictions) == (3, 2)


def test_shares(summary: Summary) -> None:
    # Nine are decided: for `b` Ann's 2 and 4 alone, for the short one "again" as well.
    assert summary.shown_first_wins == pytest.approx(7 / 9)
    assert summary.longer_wins == pytest.approx(6 / 9)
    assert summary.order_decides == 0.5


def test_annotators_and_what_they_did_besides(summary: Summary) -> None:
    rows = {row.name: row for row in summary.annotators}
    assert [row.name for row in summary.annotators] == ["ann", "bob", "judge", "eve"]
    ann = rows["ann"]
    assert (ann.preferences, ann.ties, ann.revised, ann.shared) == (6, 1, 1, 6)
    assert (rows["judge"].kind, rows["judge"].shared) == ("ai", 1)
    assert (rows["eve"].skipped, rows["eve"].flagged, rows["eve"].accuracy) == (1, 1, None)
    assert ann.accuracy is not None


def test_agreement_of_each_two(summary: Summary) -> None:
    # Ann's two opposite words on 1 and on 2 are a tie each; Bob decided both, and tied on 3 as she.
    assert summary.agreement == [
        PairAgreement("ann", "bob", 3, pytest.approx(1 / 3), pytest.approx(0.0)),
        PairAgreement("ann", "judge", 1, 0.0, 0.0),
    ]


def test_an_empty_store_has_a_summary(tmp_path: Path) -> None:
    with PreferenceStore(tmp_path / "labels.db") as store:
        found = summarize(store)
    assert found == Summary()
    assert found.to_json()["longer_wins"] is None
