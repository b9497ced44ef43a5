import math

import pytest

from tutelage.feedback.server.labels import Submission
from tutelage.feedback.server.quality import conflicts, quality


@pytest.fixture
def labelled(site, project):
    """Two people on four tasks: they agree on the first three and contradict on the last."""
    number = project(4, quota=2)
    with site.database.writing() as db:
        for who in ("ada", "bob"):
            for task in range(1, 5):
                db.execute("INSERT INTO page_claims VALUES (?, ?, 1, 0, 0, 0)", (task, who))
    choices = {"ada": [1, 4, 7, 2], "bob": [2, 4, 6, 6]}
    for who, said in choices.items():
        for task, choice in enumerate(said, 1):
            site.labels.record(task, who, Submission("label", f"{who} on {task}", 0, choice))
    return number


def test_quality_of_two_people_worked_out_by_hand(site, labelled):
    with site.database.reading() as db:
        found = quality(db, labelled)
    assert found.shared == 4
    # Sides: ada + 0 - +, bob + 0 - -. p_o = 3/4, p_e = (2 + 1 + 2) / 16.
    assert found.kappa == pytest.approx((12 / 16 - 5 / 16) / (11 / 16))
    # Nominal alpha: 2 of 8 values mismatch; counts 3, 2, 3; D_e pairs 64 - 22 = 42.
    assert found.alpha == pytest.approx(1 - 7 * 2 / 42)
    ada, bob = found.annotators
    assert (ada.name, ada.labels, ada.left, ada.ties) == ("ada", 4, 2 / 3, 1 / 4)
    assert bob.left == pytest.approx(1 / 3)
    assert ada.kappa == bob.kappa == pytest.approx(found.kappa)
    assert math.isnan(ada.gold)


def test_contradictions_are_for_the_reviewer_until_settled(site, labelled):
    with site.database.reading() as db:
        (found,) = conflicts(db, labelled)
    assert (found.task, dict(found.votes), found.settled) == (
        4,
        {"ada": 5 / 6, "bob": 1 / 6},
        False,
    )
    site.labels.record(4, "rita", Submission("settle", "a key of ritas", 0, 1))
    with site.database.reading() as db:
        (found,) = conflicts(db, labelled)
    assert found.settled


def test_flag_is_for_the_reviewer_with_its_reason(site, project):
    number = project(2)
    task = site.tasks.claim(number, "ada")
    site.labels.record(task, "ada", Submission("flag", "a key of adas", rationale="both harmful"))
    with site.database.reading() as db:
        (found,) = conflicts(db, number)
        (ada,) = quality(db, number).annotators
    assert (found.task, found.flags) == (task, ("both harmful",))
    assert (ada.labels, ada.skipped) == (0, 1)


def test_gold_accuracy_is_told_per_person(site, project):
    number = project(40, gold_every=2)
    gold = [
        {"id": f"g{n}", "prompt": [{"role": "user", "content": "?"}], "a": "x", "b": "y", "gold": 1}
        for n in range(4)
    ]
    site.projects.add(number, gold, "x")
    for who, picks_a in (("ada", True), ("bob", False)):
        for n in range(30):
            task = site.tasks.claim(number, who)
            left = site.tasks.shown(task, who).a_left
            choice = 1 if left == picks_a else 7
            site.labels.record(task, who, Submission("label", f"{who} {n} key", 0, choice))
    with site.database.reading() as db:
        found = {row.name: (row.gold, row.num_gold) for row in quality(db, number).annotators}
    assert found == {"ada": (1.0, 4), "bob": (0.0, 4)}
