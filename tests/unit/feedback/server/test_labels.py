"""What is stored of what people say, and what is refused."""

import json
import re
import sqlite3

import pytest

from tutelage.errors import ConfigError, DataError
from tutelage.feedback.server.export import (
    AS_STORED,
    NEWEST,
    OF_ONE_TASK,
    csv_rows,
    demonstrations,
    json_lines,
    preferences,
)
from tutelage.feedback.server.labels import ConflictError, NotAssignedError, Submission
from tutelage.feedback.server.serve import open_site
from tutelage.feedback.store import PreferenceStore
from tutelage.records import Demonstration, Message, Preference


def said(choice=1, *, key="a key of its own", expected=0, action="label", **more):
    return Submission(action, key, expected, choice, **more)


@pytest.fixture
def given(site, project):
    """A task given to ada, with a on the left."""
    number = project(1, quota=1)
    task = site.tasks.claim(number, "ada")
    place(site, task, "ada", a_left=True)
    return task


def place(site, task, who, *, a_left):
    with site.database.writing() as db:
        query = "UPDATE page_claims SET a_left = ? WHERE task = ? AND annotator = ?"
        db.execute(query, (a_left, task, who))


def exported(site, number=1):
    with site.database.reading() as db:
        return list(preferences(db, number))


@pytest.mark.parametrize("a_left", [True, False])
@pytest.mark.parametrize(
    ("choice", "p_left", "strength"),
    [
        (1, 1.0, 3.0),
        (2, 5 / 6, 2.0),
        (3, 4 / 6, 1.0),
        (4, 0.5, 0.0),
        (5, 2 / 6, 1.0),
        (7, 0.0, 3.0),
    ],
)
def test_choice_becomes_the_probability_that_a_is_better(
    site, given, a_left, choice, p_left, strength
):
    place(site, given, "ada", a_left=a_left)
    site.labels.record(given, "ada", said(choice))
    (found,) = site.labels.store.preferences()
    assert found.p_a == pytest.approx(p_left if a_left else 1 - p_left)
    assert (found.strength, found.annotator, found.kind) == (strength, "ada", "human")
    assert found.comparison.a == "first answer to 0"


def test_scale_of_three_has_no_strength(site, project):
    task = site.tasks.claim(project(1, scale="three"), "ada")
    place(site, task, "ada", a_left=False)
    site.labels.record(task, "ada", said(1))
    (found,) = site.labels.store.preferences()
    assert (found.p_a, found.strength) == (0.0, None)


def test_criteria_rationale_and_guidelines_are_kept(site, project):
    number = project(1, guidelines="# Be *fair*")
    task = site.tasks.claim(number, "ada")
    place(site, task, "ada", a_left=False)
    marks = {"helpful": "left", "honest": "right", "concise": "tie"}
    site.labels.record(task, "ada", said(2, criteria=marks, rationale="\u2028clear"))
    (found,) = site.labels.store.preferences()
    assert found.criteria == {"helpful": 0.0, "honest": 1.0, "concise": 0.5}
    assert found.rationale == "\u2028clear"
    assert len(found.instructions) == 64
    assert found.seconds is not None


def test_submission_sent_twice_counts_once(site, given):
    """R-AN-3: double click, retry, offline then online."""
    first = site.labels.record(given, "ada", said())
    again = site.labels.record(given, "ada", said())
    assert (again.sequence, again.again) == (first.sequence, True)
    assert len(site.labels.store) == 1


def test_second_tab_is_told_what_is_stored(site, given):
    """R-AN-3 and R-AN-4: the expected version is old, both versions can be kept."""
    site.labels.record(given, "ada", said(2))
    with pytest.raises(ConflictError) as conflict:
        site.labels.record(given, "ada", said(6, key="another tab"))
    assert (conflict.value.stored["choice"], conflict.value.version) == (2, 1)
    assert len(site.labels.store) == 1


def test_edit_takes_the_place_of_the_judgement_before_and_keeps_it(site, given):
    site.labels.record(given, "ada", said(1))
    site.labels.record(given, "ada", said(7, key="second key", expected=1))
    assert [p.p_a for p in site.labels.store.preferences()] == [0.0]
    assert [e.preference.p_a for e in site.labels.store.events()] == [1.0, 0.0]
    assert [p.p_a for p in exported(site)] == [0.0]
    assert site.projects.progress(1).labels == 1


def test_lease_that_has_expired_does_not_matter_while_there_is_room(site, given):
    with site.database.writing() as db:
        db.execute("UPDATE page_claims SET leased_until = 0")
    assert site.labels.record(given, "ada", said()).version == 1


def test_label_beyond_the_quota_is_refused(site, given):
    """R-AN-3: the lease expired, and somebody else was quicker."""
    with site.database.writing() as db:
        db.execute("UPDATE page_claims SET leased_until = 0")
    assert site.tasks.claim(1, "bob") == given
    site.labels.record(given, "bob", said())
    with pytest.raises(ConflictError, match="others have completed"):
        site.labels.record(given, "ada", said())
    assert [p.annotator for p in site.labels.store.preferences()] == ["bob"]


def test_database_itself_refuses_what_is_over_quota_or_double(site, given):
    """The constraint is the truth, whatever the code above it believes."""
    site.labels.record(given, "ada", said())
    columns = "(task, annotator, version, action, slot, a_left, key, created)"
    for row, reason in (
        ((given, "bob", 0, "label", 1, 1, "k1", 0), "over quota"),
        ((given, "bob", 0, "label", 0, 1, "k2", 0), "UNIQUE"),
        ((given, "ada", 0, "label", None, 1, "k3", 0), "UNIQUE"),
    ):
        with pytest.raises(DataError, match=reason), site.database.writing() as db:
            db.execute(f"INSERT INTO page_events {columns} VALUES (?,?,?,?,?,?,?,?)", row)


def test_task_that_was_never_given_cannot_be_labelled(site, given):
    with pytest.raises(NotAssignedError):
        site.labels.record(given, "bob", said())


def test_skip_takes_no_place_and_can_be_taken_back(site, given):
    site.labels.record(given, "ada", said(None, action="skip"))
    assert site.projects.progress(1).labels == 0
    assert site.tasks.claim(1, "ada") is None
    site.labels.record(given, "ada", said(3, key="thought again", expected=1))
    assert site.projects.progress(1).labels == 1


def test_better_answer_becomes_a_demonstration(site, given):
    site.labels.record(given, "ada", said(1, answer="a better one"))
    with site.database.reading() as db:
        found = list(demonstrations(db, 1))
    messages = (Message("user", "question 0?"), Message("assistant", "a better one"))
    assert found == [Demonstration("c0/by-ada", messages, "people")]


def test_prompt_alone_asks_for_an_answer(site, project):
    number = project(0, quota=1)
    site.projects.add(number, [{"id": "p", "prompt": [{"role": "user", "content": "why?"}]}], "x")
    task = site.tasks.claim(number, "ada")
    with pytest.raises(ConfigError, match="asks for an answer"):
        site.labels.record(task, "ada", said(1))
    with pytest.raises(ConfigError, match="empty"):
        site.labels.record(task, "ada", said(None, action="answer", answer=" "))
    site.labels.record(task, "ada", said(None, action="answer", answer="because"))
    assert site.projects.progress(number).labels == 1
    assert site.tasks.claim(number, "bob") is None
    with site.database.reading() as db:
        assert [row.messages[-1].content for row in demonstrations(db, number)] == ["because"]


def test_reviewers_judgement_counts_in_place_of_the_others(site, project):
    number = project(1, quota=2)
    for who, choice in (("ada", 1), ("bob", 7)):
        place(site, site.tasks.claim(number, who), who, a_left=True)
        site.labels.record(1, who, said(choice))
    assert len(exported(site)) == 2
    site.labels.record(1, "rita", said(2, action="settle"))
    assert [(p.annotator, p.p_a) for p in exported(site)] == [("rita", 5 / 6)]
    assert len(site.labels.store) == 3


def test_gold_labels_are_no_training_data(site, project):
    number = project(30, gold_every=2)
    gold = {"id": "g", "prompt": [{"role": "user", "content": "?"}], "a": "x", "b": "y", "gold": 1}
    site.projects.add(number, [gold], "x")
    for n in range(20):
        task = site.tasks.claim(number, "ada")
        site.labels.record(task, "ada", said(key=f"key number {n}"))
    with site.database.reading() as db:
        labelled = db.execute("SELECT count(*) FROM page_events WHERE task = 31").fetchone()[0]
    assert labelled == 1
    assert len(exported(site)) == len(site.labels.store) == 19


@pytest.mark.parametrize(
    "bad",
    [
        {"choice": 0},
        {"choice": 8},
        {"choice": None},
        {"criteria": {"pretty": "left"}},
        {"criteria": {"helpful": "up"}},
    ],
)
def test_what_was_not_asked_is_refused(site, given, bad):
    with pytest.raises(ConfigError):
        site.labels.record(given, "ada", said(**{"choice": 1, **bad}))
    assert len(site.labels.store) == 0


@pytest.mark.parametrize(
    "bad",
    [{"key": "short"}, {"rationale": "x" * 100_001}, {"answer": "\ud800"}, {"key": "k" * 101}],
)
def test_texts_have_bounds(bad):
    with pytest.raises(ConfigError):
        said(**bad)


def test_key_of_another_task_is_refused(site, project):
    number = project(2)
    first = site.tasks.claim(number, "ada")
    site.labels.record(first, "ada", said())
    second = site.tasks.claim(number, "ada")
    with pytest.raises(ConfigError, match="another task"):
        site.labels.record(second, "ada", said())


def test_label_that_a_killed_server_had_not_published_is_published_at_the_next_start(
    site, given, database, tmp_path
):
    site.labels.record(given, "ada", said())
    # The store of a server that was killed between the two commits.
    with sqlite3.connect(database) as db:
        db.execute("DROP TRIGGER feedback_no_DELETE")
        db.execute("DELETE FROM feedback")
    db.close()
    assert len(site.labels.store) == 0
    with open_site(database) as again:
        assert [p.annotator for p in again.labels.store.preferences()] == ["ada"]
        assert again.labels.publish_all() == 0


def test_export_reads_back_exactly_and_every_row_is_a_line(site, given):
    """R-AN-9: line separators of Unicode stay inside their line."""
    text = 'a\u2028b\u2029c\u0085d "quoted"\n=1+1'
    site.labels.record(given, "ada", said(1, rationale=text))
    with site.database.reading() as db:
        (line,) = json_lines(preferences(db, 1))
    assert line.count("\n") == 1
    assert Preference.from_json(json.loads(line)).rationale == text


def test_no_cell_of_a_table_is_a_formula(site, project):
    """R-AN-9."""
    number = project(0)
    for n, start in enumerate(["=cmd()", "+1", "-1", "@x", "\tx", "\rx"]):
        row = {"id": f"={n}", "prompt": [{"role": "user", "content": start}], "a": start, "b": "b"}
        site.projects.add(number, [row], "x")
        task = site.tasks.claim(number, "ada")
        site.labels.record(task, "ada", said(key=f"key number {n}", rationale=start))
    with site.database.reading() as db:
        lines = list(csv_rows(preferences(db, number)))
    import csv
    import io

    cells = [cell for row in csv.reader(io.StringIO("".join(lines), newline="")) for cell in row]
    assert len(cells) == 7 * 9
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert "'=cmd()" in cells


def test_store_of_the_page_is_the_store_of_everybody(site, given, database):
    site.labels.record(given, "ada", said())
    with PreferenceStore(database) as store:
        assert store.counts("annotator") == {"ada": 1}


def test_publishing_a_label_does_not_read_all_that_the_person_has_said(site, given):
    # With an index on the person alone, a day of labels costs the square of their number.
    query = f"EXPLAIN QUERY PLAN {NEWEST}{OF_ONE_TASK}{AS_STORED}"
    with site.database.reading() as db:
        steps = [row["detail"] for row in db.execute(query, (given, "ada"))]
    events = [step for step in steps if re.search(r"\b(e|newer)\b", step)]
    assert len(events) == 2
    assert all(re.search(r"\(task=\?", step) for step in events), events
