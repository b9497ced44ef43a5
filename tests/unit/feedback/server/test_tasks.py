"""Assignment: quota, leases, sides, gold items."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from tutelage.errors import ConfigError, DataError
from tutelage.feedback.server import clock as clock_module
from tutelage.feedback.server.labels import Submission
from tutelage.feedback.server.projects import ProjectSettings


def label(site, task, who, choice=1, **said):
    version = site.tasks.shown(task, who).version
    key = f"{who}-{task}-{version}-key"
    return site.labels.record(task, who, Submission("label", key, version, choice, **said))


def test_task_is_shown_again_until_something_is_said(site, project):
    number = project(3)
    first = site.tasks.claim(number, "ada")
    assert site.tasks.claim(number, "ada") == first
    label(site, first, "ada")
    assert site.tasks.claim(number, "ada") != first


def test_everybody_gets_each_task_once_and_then_nothing(site, project):
    number = project(4, quota=2)
    for who in ("ada", "bob"):
        done = []
        while (task := site.tasks.claim(number, who)) is not None:
            done.append(task)
            label(site, task, who)
        assert sorted(done) == [1, 2, 3, 4]
    assert site.tasks.claim(number, "cleo") is None


def test_lease_keeps_others_away_and_ends(site, project, monkeypatch):
    number = project(1, quota=1, lease_seconds=60.0)
    time = [1000.0]
    monkeypatch.setattr(clock_module, "now", lambda: time[0])
    assert site.tasks.claim(number, "ada") == 1
    assert site.tasks.claim(number, "bob") is None
    time[0] += 61
    assert site.tasks.claim(number, "bob") == 1


def test_tasks_that_lack_least_come_first(site, project):
    number = project(3, quota=2)
    site.tasks.claim(number, "ada")
    label(site, 1, "ada")
    assert site.tasks.claim(number, "bob") == 1


@pytest.mark.parametrize("people", [5, pytest.param(100, marks=pytest.mark.soak)])
def test_left_and_right_are_balanced(site, project, people):
    """R-AN-11: over ten thousand assignments in `make test-browser`."""
    number = project(100, quota=people)
    tasks = replace(site.tasks, random=Random(0))
    for annotator in range(people):
        for _ in range(100):
            task = tasks.claim(number, f"p{annotator}")
            with site.database.writing() as db:
                query = "UPDATE page_claims SET version = 1 WHERE task = ? AND annotator = ?"
                db.execute(query, (task, f"p{annotator}"))
    with site.database.reading() as db:
        total, left = db.execute("SELECT count(*), sum(a_left) FROM page_claims").fetchone()
    assert total == 100 * people
    # Three standard deviations of a fair coin: 1.5 points of ten thousand.
    assert abs(left / total - 0.5) < 1.5 / total**0.5


def test_side_stays_the_same_for_one_person(site, project):
    number = project(1)
    task = site.tasks.claim(number, "ada")
    first = site.tasks.shown(task, "ada")
    for _ in range(10):
        site.tasks.claim(number, "ada")
        assert site.tasks.shown(task, "ada").left == first.left


def test_sides_show_both_texts(site, project):
    number = project(20)
    seen = Counter()
    for n in range(20):
        task = site.tasks.claim(number, "ada")
        shown = site.tasks.shown(task, "ada")
        assert {shown.left, shown.right} == {shown.comparison.a, shown.comparison.b}
        seen[shown.left == shown.comparison.a] += 1
        label(site, task, "ada", 1 + n % 7)
    assert set(seen) == {True, False}


def test_task_of_somebody_else_is_not_shown(site, project):
    task = site.tasks.claim(project(), "ada")
    assert site.tasks.shown(task, "bob") is None


def test_gold_items_are_mixed_in_and_asked_of_everybody(site, project):
    number = project(60, quota=2, gold_every=3)
    gold = [
        {
            "id": f"g{n}",
            "prompt": [{"role": "user", "content": "?"}],
            "a": "right",
            "b": "no",
            "gold": 1.0,
        }
        for n in range(5)
    ]
    site.projects.add(number, gold, "x")
    asked = {}
    for who in ("ada", "bob", "cleo"):
        asked[who] = set()
        for _ in range(30):
            task = site.tasks.claim(number, who)
            label(site, task, who)
            asked[who].add(task)
    assert all({61, 62, 63, 64, 65} <= tasks for tasks in asked.values())


def test_gold_items_alone_are_not_handed_out(site, project):
    number = project(0)
    gold = {"id": "g", "prompt": [{"role": "user", "content": "?"}], "a": "x", "b": "y", "gold": 0}
    site.projects.add(number, [gold], "x")
    assert site.tasks.claim(number, "ada") is None


def test_closed_project_hands_out_nothing(site, project):
    number = project(2)
    site.projects.change(number, ProjectSettings(open=False), "x")
    assert site.tasks.claim(number, "ada") is None


def test_import_twice_adds_nothing(site, project):
    number = project(0)
    rows = [{"id": "1", "prompt": [{"role": "user", "content": "q"}], "a": "x", "b": "y"}]
    assert site.projects.add(number, rows, "x") == 1
    assert site.projects.add(number, rows, "x") == 0
    with pytest.raises(DataError, match="another content"):
        site.projects.add(number, [{**rows[0], "a": "z"}], "x")
    other = site.projects.create("other", ProjectSettings(), "x")
    with pytest.raises(DataError, match="give it an id of its own"):
        site.projects.add(other.id, rows, "x")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": "1", "a": "x", "b": "y"}, "'prompt' is missing"),
        ({"id": "1", "prompt": [], "a": "x", "b": "x"}, "same text"),
        ({"id": "1", "prompt": [{"role": "user", "content": 3}], "a": "x", "b": "y"}, "are texts"),
        ({"id": "1", "prompt": [{"role": "user", "content": "q"}], "a": "x"}, "'b' is missing"),
        (
            {
                "id": "1",
                "prompt": [{"role": "user", "content": "q"}],
                "a": "x",
                "b": "y",
                "gold": 2,
            },
            "probability",
        ),
    ],
)
def test_row_that_is_no_task_is_named_and_nothing_is_imported(site, project, row, reason):
    number = project(0)
    good = {"id": "0", "prompt": [{"role": "user", "content": "q"}], "a": "x", "b": "y"}
    with pytest.raises(DataError, match=f"row 2.*{reason}"):
        site.projects.add(number, [good, row], "x")
    assert site.projects.progress(number).tasks == 0


@pytest.mark.parametrize(
    "settings", [{"quota": 0}, {"gold_every": 1}, {"scale": "ten"}, {"criteria": ("<b>",)}]
)
def test_settings_that_could_not_be_asked_are_refused(settings):
    with pytest.raises(ConfigError):
        ProjectSettings(**settings)
