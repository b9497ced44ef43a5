"""The store keeps every preference once, whoever writes and whoever is killed."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import DataError
from tutelage.feedback.store import PreferenceStore
from tutelage.records import Comparison, Message, Preference, Prompt


def preference(number: int, **changes: Any) -> Preference:
    prompt = Prompt(f"p{number}", (Message("user", f"Question {number}?"),), source="made")
    comparison = Comparison(prompt, f"good {number}", f"bad {number}", f"p{number}/0-1")
    made = Preference(comparison, 0.75, "ann", "human", "clear", 2.5, "2024-05-01T12:00:00Z")
    return replace(made, **changes)


@pytest.fixture
def store(location: str) -> Iterator[PreferenceStore]:
    with PreferenceStore(location) as opened:
        yield opened


def test_what_is_added_comes_back_in_order_and_equal(store: PreferenceStore) -> None:
    added = [preference(i) for i in (3, 1, 2)]
    assert store.add(added) == 3
    assert store.preferences() == added
    assert len(store) == 3


def test_adding_again_adds_nothing(store: PreferenceStore) -> None:
    added = [preference(i) for i in range(1000)]
    assert store.add(added[:700]) == 700
    # Time and rationale may differ when a round is repeated; the judgement may not.
    later = [replace(item, created="2024-05-02T00:00:00Z", seconds=None) for item in added]
    assert store.add(later) == 300
    assert store.add(later) == 0
    assert store.preferences()[0] == added[0]
    assert len(store) == 1000


def test_a_repetition_within_one_call_counts_once(store: PreferenceStore) -> None:
    assert store.add([preference(1), preference(1), preference(2)]) == 2


def test_annotators_and_rounds_are_kept_apart(store: PreferenceStore) -> None:
    several = [preference(1), preference(1, annotator="bob", p_a=0.0), preference(1, round=1)]
    assert store.add(several) == 3
    assert store.preferences(annotator="bob") == [several[1]]
    assert store.judged("ann") == {"p1/0-1"}
    assert store.judged("ann", round=1) == {"p1/0-1"}
    assert store.judged("bob", round=1) == frozenset()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"p_a": 0.25}, "p_a 0.75 there, 0.25 now"), ({"comparison": None}, "texts are not the same")],
    ids=["label", "texts"],
)
def test_a_changed_judgement_is_refused_and_nothing_of_its_batch_stays(
    store: PreferenceStore, changes: dict[str, Any], reason: str
) -> None:
    store.add([preference(1)])
    if "comparison" in changes:
        changes = {"comparison": replace(preference(1).comparison, a="another text")}
    # More than one chunk of rows comes before the conflict.
    batch = [*(preference(i) for i in range(2, 900)), preference(1, **changes)]
    with pytest.raises(DataError, match=reason):
        store.add(batch)
    assert store.preferences() == [preference(1)]


@pytest.mark.parametrize(
    "statement", ["UPDATE feedback SET kind = 'ai'", "DELETE FROM feedback", "TRUNCATE feedback"]
)
def test_rows_can_be_neither_changed_nor_deleted(
    store: PreferenceStore, location: str, statement: str
) -> None:
    if statement.startswith("TRUNCATE") and "://" not in location:
        statement = "DELETE FROM feedback WHERE 1"
    store.add([preference(1)])
    with pytest.raises(DataError, match="never changed"), store.transaction() as connection:
        connection.exec_driver_sql(statement)
    assert store.preferences() == [preference(1)]


def test_the_file_itself_refuses_changes(tmp_path: Path) -> None:
    with PreferenceStore(tmp_path / "preferences.db") as store:
        store.add([preference(1)])
    connection = sqlite3.connect(tmp_path / "preferences.db")
    with pytest.raises(sqlite3.IntegrityError, match="never changed"):
        connection.execute("DELETE FROM feedback")
    connection.close()


def test_kinds_are_selected_and_counted(store: PreferenceStore) -> None:
    ai = preference(2, kind="ai", annotator="judge")
    other = replace(ai.comparison.prompt, source="other")
    elsewhere = replace(ai, comparison=replace(ai.comparison, prompt=other, id="p2/0-2"))
    store.add([preference(1), ai, elsewhere])
    assert store.preferences(kind="ai") == [ai, elsewhere]
    assert store.preferences(kind="ai", annotator="ann") == []
    assert store.counts() == {"made": 2, "other": 1}
    assert store.counts("kind") == {"ai": 2, "human": 1}
    assert store.counts("annotator") == {"ann": 1, "judge": 2}
    assert store.counts("round") == {"0": 3}


def test_a_store_is_there_after_it_was_closed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "preferences.db"
    with PreferenceStore(path) as store:
        store.add([preference(1)])
    with PreferenceStore(f"sqlite:///{path}") as again:
        assert again.preferences() == [preference(1)]


def test_a_file_that_is_no_database_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database, but long enough to be read as one\n" * 40)
    with pytest.raises(DataError, match="not a database"):
        PreferenceStore(tmp_path / "notes.txt")


def test_an_unknown_place_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot use a preference store"):
        PreferenceStore("nodatabase://somewhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot use a preference store"):
        PreferenceStore(tmp_path / "file" / "preferences.db")


def test_threads_can_write_at_once(location: str) -> None:
    counts: list[int] = []

    def write(start: int) -> None:
        with PreferenceStore(location) as mine:
            # Half of each thread's preferences are also another's.
            counts.extend(mine.add([preference(i)]) for i in range(start, start + 20))

    threads = [threading.Thread(target=write, args=(10 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with PreferenceStore(location) as store:
        assert sum(counts) == len(store) == 50
        assert len(store.judged("ann")) == 50


def _open_store(location: str, ready: threading.Barrier, opened: list[int]) -> None:
    ready.wait()
    with PreferenceStore(location) as store:
        opened.append(len(store))


def test_stores_that_open_a_new_place_at_once_wait_for_each_other(location: str) -> None:
    # A database is new once.
    for attempt in range(1 if "://" in location else 5):
        opened: list[int] = []
        ready = threading.Barrier(6)
        given = (location if "://" in location else f"{location}-{attempt}", ready, opened)
        threads = [threading.Thread(target=_open_store, args=given) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert opened == [0] * 6


_WRITER = """
import sys
from tutelage.feedback.store import PreferenceStore
from tutelage.records import Comparison, Message, Preference, Prompt

store, name = PreferenceStore(sys.argv[1]), sys.argv[2]
for batch in range(100000):
    rows = []
    for i in range(7):
        prompt = Prompt(f"{name}-{batch}-{i}", (Message("user", "?"),))
        rows.append(Preference(Comparison(prompt, "a", "b", prompt.id), 1.0, name))
    store.add(rows)
    print(batch, flush=True)
"""


def test_a_killed_writer_leaves_whole_batches_and_everything_it_reported(location: str) -> None:
    command = [sys.executable, "-c", _WRITER, location]
    writers = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "xy"
    ]
    reported = {}
    for writer, name in zip(writers, "xy", strict=True):
        assert writer.stdout is not None
        for _ in range(5):
            assert writer.stdout.readline()
        time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0].split()
        reported[name] = 5 + len(rest)
    with PreferenceStore(location) as store:
        counts = store.counts("annotator")
        # One batch may have been committed after the last report that came through.
        for name in "xy":
            assert counts[name] % 7 == 0
            assert 7 * reported[name] <= counts[name] <= 7 * (reported[name] + 1)
        assert store.add([preference(1)]) == 1
