"""Whoever changes their mind adds an event; of each annotator and comparison the newest counts."""

import json
import random
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.feedback import Event, PreferenceStore, StaleEventError
from tutelage.records import Comparison, Message, Preference, Prompt


def judgement(number: int = 1, p_a: float = 1.0, annotator: str = "ann", **changes: Any) -> Event:
    prompt = Prompt(f"p{number}", (Message("user", f"Question {number}?"),), source="made")
    comparison = Comparison(prompt, f"good {number}", f"bad {number}", f"p{number}/0-1")
    return Event.judgement(replace(Preference(comparison, p_a, annotator), **changes))


def said(
    action: Any, number: int = 1, annotator: str = "ann", note: str = "", **more: Any
) -> Event:
    return Event(f"p{number}/0-1", annotator, action, note=note, **more)


@pytest.fixture
def store(location: str) -> Iterator[PreferenceStore]:
    with PreferenceStore(location) as opened:
        yield opened


def test_events_are_numbered_for_each_annotator_and_comparison(store: PreferenceStore) -> None:
    first = store.record(judgement())
    edited = store.record(judgement(p_a=0.0))
    other = store.record(judgement(annotator="bob"))
    assert (first.version, edited.version, other.version) == (1, 2, 1)
    assert first.sequence < edited.sequence < other.sequence
    assert store.events() == [first, edited, other]


def test_an_edit_takes_the_place_of_what_was_said_before_and_both_stay(
    store: PreferenceStore,
) -> None:
    before, edit = judgement(p_a=1.0, rationale="polite"), judgement(p_a=0.5, rationale="both")
    store.record(before)
    store.record(judgement(2))
    store.record(edit)
    assert store.preferences() == [judgement(2).preference, edit.preference]
    assert [event.preference for event in store.events(comparison="p1/0-1")] == [
        before.preference,
        edit.preference,
    ]
    assert len(store) == 2


def test_an_edit_of_the_rationale_alone_is_one(store: PreferenceStore) -> None:
    store.record(judgement())
    store.record(judgement(rationale="says when it comes"))
    assert [preference.rationale for preference in store.preferences()] == ["says when it comes"]


@pytest.mark.parametrize("action", ["skipped", "withdrawn"])
def test_a_skip_or_an_undo_leaves_no_judgement(store: PreferenceStore, action: str) -> None:
    store.record(judgement())
    store.record(said(action, note="cannot tell"))
    assert store.preferences() == []
    assert len(store) == 0
    assert store.judged("ann") == frozenset()
    assert store.counts() == {}
    newest = store.newest("p1/0-1", "ann")
    assert newest is not None
    assert (newest.action, newest.note, newest.version) == (action, "cannot tell", 2)


def test_judging_again_after_an_undo_counts(store: PreferenceStore) -> None:
    for event in (judgement(), said("withdrawn"), judgement(p_a=0.0)):
        store.record(event)
    assert store.preferences() == [judgement(p_a=0.0).preference]


def test_a_flag_leaves_the_judgement_and_can_be_taken_back(store: PreferenceStore) -> None:
    store.record(judgement())
    store.record(judgement(2))
    flag = store.record(said("flagged", note="names a person"))
    second = store.record(said("flagged", 2))
    assert len(store) == 2
    assert store.flagged() == [flag, second]
    newest = store.newest("p1/0-1", "ann")
    assert newest is not None
    assert newest.action == "judged"
    store.record(said("unflagged"))
    assert store.flagged() == [second]


def test_what_one_annotator_does_leaves_the_others_alone(store: PreferenceStore) -> None:
    store.record(judgement())
    store.record(judgement(annotator="bob"))
    store.record(said("withdrawn", annotator="bob"))
    store.record(said("skipped", 1, round=1))
    assert store.preferences() == [judgement().preference]


def test_the_same_again_is_not_a_new_event(store: PreferenceStore) -> None:
    event = judgement(created="2024-05-01T12:00:00Z", seconds=2.0)
    first = store.record(event, expected=0)
    # A client that had no answer sends again, and its clock went on.
    again = store.record(judgement(created="2024-05-01T12:00:09Z", seconds=11.0), expected=0)
    assert again == first
    skipped = store.record(said("skipped", 2, note="cannot tell"))
    assert store.record(said("skipped", 2, note="cannot tell")) == skipped
    assert len(store.events()) == 2
    flag = store.record(said("flagged"))
    assert store.record(event, expected=0) == first
    assert store.record(said("flagged")) == flag
    assert len(store.events()) == 3


def test_a_stale_edit_is_refused_and_shows_what_there_is(store: PreferenceStore) -> None:
    store.record(judgement(), expected=0)
    current = store.record(judgement(p_a=0.0), expected=1)
    with pytest.raises(StaleEventError, match=r"version 1 .* is at version 2") as caught:
        store.record(judgement(p_a=0.5), expected=1)
    assert caught.value.current == current
    with pytest.raises(StaleEventError):
        store.record(judgement(p_a=0.5), expected=0)
    assert store.record(judgement(p_a=0.5), expected=2).version == 3


def test_other_texts_under_the_same_id_are_refused(store: PreferenceStore) -> None:
    store.record(judgement())
    strange = judgement(annotator="bob").preference
    assert strange is not None
    comparison = strange.comparison
    swapped = replace(strange, comparison=comparison.swap())
    store.record(Event.judgement(swapped))
    other = replace(strange, comparison=replace(comparison, a="another"), annotator="eve")
    with pytest.raises(DataError, match="the texts are not the same"):
        store.record(Event.judgement(other))
    with pytest.raises(DataError, match="the texts are not the same"):
        store.add([other])
    # A later round draws new texts for the same prompt.
    assert store.add([replace(other, round=1)]) == 1


def test_a_transaction_is_all_or_nothing(store: PreferenceStore) -> None:
    def over_the_quota() -> None:
        with store.transaction() as connection:
            store.record(judgement(), connection=connection)
            assert store.newest("p1/0-1", "ann", connection=connection) is not None
            raise DataError("over the quota")

    with pytest.raises(DataError, match="quota"):
        over_the_quota()
    assert store.events() == []
    with store.transaction() as connection:
        store.record(judgement(), connection=connection)
        store.record(said("flagged"), connection=connection)
    assert [event.action for event in store.events()] == ["judged", "flagged"]


def test_many_threads_edit_one_comparison_and_no_version_is_lost_or_double(location: str) -> None:
    refused: list[int] = []

    def work(seed: int) -> None:
        drawn = random.Random(seed)
        with PreferenceStore(location) as mine:
            for _ in range(5):
                newest = mine.newest("p1/0-1", "ann")
                expected = 0 if newest is None else newest.version
                try:
                    mine.record(judgement(p_a=drawn.random()), expected=expected)
                except StaleEventError:
                    refused.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with PreferenceStore(location) as store:
        versions = [event.version for event in store.events()]
    assert versions == list(range(1, 20 - len(refused) + 1))


def test_adding_refuses_another_judgement_and_revising_takes_it(store: PreferenceStore) -> None:
    before, after = judgement().preference, judgement(p_a=0.25).preference
    assert before is not None
    assert after is not None
    store.add([before])
    with pytest.raises(DataError, match=r"p_a 1 there, 0\.25 now.*revise"):
        store.add([after])
    assert store.add([after], revise=True) == 1
    assert store.preferences() == [after]
    # An older file is no news, whichever way it is given.
    assert store.add([before], revise=True) == 0
    assert store.add([before, after]) == 0
    assert store.preferences() == [after]


def test_adding_what_was_withdrawn_does_not_bring_it_back(store: PreferenceStore) -> None:
    store.record(judgement())
    store.record(said("withdrawn"))
    assert store.add([judgement().preference]) == 0
    assert store.preferences() == []


def test_a_judgement_of_what_was_skipped_is_new(store: PreferenceStore) -> None:
    store.record(said("skipped"))
    assert store.add([judgement().preference]) == 1
    assert store.preferences() == [judgement().preference]


def test_the_order_of_showing_is_no_change_of_mind(store: PreferenceStore) -> None:
    preference = judgement(p_a=0.3).preference
    assert preference is not None
    store.add([preference])
    assert store.add([preference.swap()]) == 0


STEPS = st.lists(
    st.tuples(
        st.integers(1, 2),
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(["judged", "skipped", "withdrawn", "flagged", "unflagged"]),
        st.sampled_from([0.0, 0.5, 1.0]),
    ),
    max_size=12,
)


@settings(max_examples=30)
@given(steps=STEPS)
def test_reads_give_the_newest_word_of_each(
    steps: list[tuple[int, str, str, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a dictionary that is overwritten step by step."""
    folder = tmp_path_factory.mktemp("steps")
    words: dict[tuple[int, str], float | None] = {}
    with PreferenceStore(folder / "labels.db") as store:
        for number, annotator, action, p_a in steps:
            if action == "judged":
                store.record(judgement(number, p_a, annotator))
                words[number, annotator] = p_a
            else:
                store.record(said(action, number, annotator))
                if action in ("skipped", "withdrawn"):
                    words[number, annotator] = None
        found = {
            (int(row.comparison.prompt.id[1:]), row.annotator): row.p_a
            for row in store.preferences()
        }
    assert found == {key: p_a for key, p_a in words.items() if p_a is not None}


def test_an_event_says_what_it_is() -> None:
    with pytest.raises(ValueError, match="expected one of judged, skipped"):
        said("liked")
    with pytest.raises(ValueError, match="'judged' alone"):
        said("judged")
    with pytest.raises(ValueError, match="'judged' alone"):
        Event("p1/0-1", "ann", "skipped", judgement().preference)


def test_a_store_with_one_row_for_each_judgement_is_taken_over(tmp_path: Path) -> None:
    preference = judgement().preference
    assert preference is not None
    connection = sqlite3.connect(tmp_path / "old.db")
    connection.execute(
        "CREATE TABLE preferences (sequence INTEGER PRIMARY KEY, comparison, annotator, round, "
        "kind, source, record)"
    )
    row = ("p1/0-1", "ann", 0, "human", "made", json.dumps(preference.to_json()))
    connection.execute("INSERT INTO preferences VALUES (1, ?, ?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.close()
    for _ in range(2):
        with PreferenceStore(tmp_path / "old.db", create=False) as store:
            assert store.preferences() == [preference]
            assert [event.version for event in store.events()] == [1]


def test_a_store_to_be_read_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no preference store"):
        PreferenceStore(tmp_path / "typo.db", create=False)
    assert not list(tmp_path.iterdir())
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE other (x)").connection.close()
    with pytest.raises(DataError, match="a database without a preference store"):
        PreferenceStore(tmp_path / "other.db", create=False)


def test_the_digest_is_of_what_stands(store: PreferenceStore, tmp_path: Path) -> None:
    store.record(judgement())
    before = store.digest()
    store.record(said("flagged"))
    store.record(judgement(2))
    assert store.digest() != before
    store.record(said("withdrawn", 2))
    assert store.digest() == before
    with PreferenceStore(tmp_path / "copy.db") as copy:
        copy.add(store.preferences())
        assert copy.digest() == before
