"""The annotation page as people meet it: by keyboard, in two tabs, offline, with hostile texts."""

import json
import re
from pathlib import Path

import pytest

from tutelage.feedback.server.export import preferences
from tutelage.feedback.server.labels import Submission
from tutelage.feedback.server.projects import ProjectSettings

pytestmark = pytest.mark.browser

ALLOWED = (
    "P BR HR STRONG EM S DEL CODE PRE BLOCKQUOTE UL OL LI H1 H2 H3 H4 H5 H6 "
    "TABLE THEAD TBODY TR TH TD A"
)
HERE = Path(__file__).parent
FAULTS = (HERE / "faults.js").read_text("utf-8")
HOSTILE = json.loads((HERE / "hostile.json").read_text("utf-8"))
"""Texts that try to be more than text, as a model or a colleague might write them."""
QUESTION = (
    "My kettle trips the breaker every morning, but only when the toaster is on as well. Is the "
    "kettle broken, and is it **safe** to keep using both?"
)
GOOD = (
    "The kettle is probably fine. A kettle draws about 13 A and a toaster 4 to 8 A; together they "
    "are too much for one 16 A circuit.\n\n- Use them **one after the other**, or on different "
    "circuits.\n- If the breaker trips with the kettle *alone*, have it checked.\n\nA breaker that "
    "trips is doing its job: do not replace it with a larger one."
)
POOR = (
    "Yes, the kettle is broken. You should buy a new one. You could also put in a larger breaker, "
    "for example `32 A`, so that it does not trip any more. I hope this helps! Please let me know "
    "if there is anything else I can do for you today."
)


def rows(count):
    return [
        {
            "id": f"c{n}",
            "prompt": [{"role": "user", "content": QUESTION if n == 0 else f"Question {n}?"}],
            "a": GOOD if n == 0 else f"First answer to {n}.",
            "b": POOR if n == 0 else f"Second answer to {n}.",
        }
        for n in range(count)
    ]


@pytest.fixture
def project(site):
    guidelines = (
        "# What to look at\n\n1. Is it **true**?\n2. Does it help?\n\n> When in doubt: tie."
    )

    def make(count=4, **settings):
        given = {"guidelines": guidelines, "quota": 2, **settings}
        number = site.projects.create("Household questions", ProjectSettings(**given), "x").id
        site.projects.add(number, rows(count), "x")
        return number

    return make


@pytest.fixture
def task(enter, project):
    """A page on ada's first task."""

    def open_task(name="ada", **options):
        page = enter(name, **options).new_page()
        page.goto("/project/1")
        page.get_by_role("button", name=re.compile("Begin|Go on")).click()
        page.wait_for_url("**/task/*")
        return page

    project()
    return open_task


def stored(site):
    """Comparison, version and p_a of every judgement."""
    events = [event for event in site.labels.store.events() if event.preference is not None]
    return [(event.comparison, event.version, event.preference.p_a) for event in events]


def test_keyboard_alone_is_enough(task, site):
    """R-AN-13: choose, mark a criterion, give a reason, store, undo, change, skip."""
    page = task()
    page.keyboard.press("2")
    page.keyboard.press("r")
    page.keyboard.type("it is true")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.wait_for_url("**/task/2")
    (first,) = site.labels.store.preferences()
    assert first.rationale == "it is true"
    assert first.p_a in (5 / 6, 1 / 6)
    page.keyboard.press("u")
    page.wait_for_url("**/task/1")
    assert page.get_by_role("radio", name="A is better", exact=True).is_checked()
    page.keyboard.press("7")
    page.keyboard.press("Enter")
    page.wait_for_url("**/task/2")
    page.keyboard.press("s")
    page.wait_for_url("**/task/3")
    page.keyboard.press("t")
    page.keyboard.press("Enter")
    page.wait_for_url("**/task/4")
    found = stored(site)
    assert [(name, version) for name, version, _ in found] == [("c0", 1), ("c0", 2), ("c2", 1)]
    assert found[2][2] == 0.5


def test_tab_reaches_everything_in_order(task):
    """R-AN-13: no trap, and every stop shows that it is one."""
    page = task()
    stops = []
    for _ in range(60):
        page.keyboard.press("Tab")
        stop = page.evaluate(
            """() => { const e = document.activeElement; const s = getComputedStyle(e);
            const n = e.nextElementSibling;
            const outlined = (style) => style.outlineStyle !== 'none';
            const shown = outlined(s) || (n && outlined(getComputedStyle(n)));
            return [e.tagName, e.name || e.textContent.trim().slice(0, 20), shown]; }"""
        )
        if stop[0] == "BODY":
            break
        stops.append(stop)
    names = [stop[1] for stop in stops]
    assert {"choice", "rationale"} <= set(names)
    assert any(name.startswith("Store and go on") for name in names)
    assert len(stops) < 60
    assert all(stop[2] for stop in stops)


def test_double_click_stores_once(task, site):
    """R-AN-3."""
    page = task()
    page.get_by_role("radio", name="A is much better").check()
    page.get_by_role("button", name="Store and go on").dblclick()
    page.wait_for_url("**/task/2")
    assert len(stored(site)) == 1


def test_second_tab_is_shown_what_is_stored_and_loses_nothing(task, site):
    """R-AN-3, R-AN-4."""
    first = task()
    second = first.context.new_page()
    second.goto(first.url)
    first.keyboard.press("1")
    first.keyboard.press("Enter")
    first.wait_for_url("**/task/2")
    second.keyboard.press("7")
    second.get_by_label("Why?").fill("thought about it")
    second.get_by_role("button", name="Store and go on").click()
    second.get_by_text("Stored is: A is much better").wait_for()
    assert len(stored(site)) == 1
    assert second.get_by_label("Why?").input_value() == "thought about it"
    second.get_by_role("button", name="Store mine instead").click()
    second.wait_for_url("**/task/2")
    assert [version for _, version, _ in stored(site)] == [1, 2]


def test_back_button_shows_what_was_said(task, site):
    """R-AN-3."""
    page = task()
    page.keyboard.press("6")
    page.keyboard.press("Enter")
    page.wait_for_url("**/task/2")
    page.go_back()
    page.get_by_text("You have done this one before").wait_for()
    assert page.get_by_role("radio", name="B is better", exact=True).is_checked()
    assert len(stored(site)) == 1


def test_what_is_stored_offline_arrives_once(task, site):
    """R-AN-3: offline, then online."""
    page = task()
    page.keyboard.press("1")
    page.get_by_label("Why?").fill("said in a tunnel")
    page.context.set_offline(True)
    page.get_by_role("button", name="Store and go on").click()
    page.get_by_text("No connection").wait_for()
    assert page.get_by_label("Why?").input_value() == "said in a tunnel"
    page.context.set_offline(False)
    page.wait_for_url("**/task/2")
    assert [p.rationale for p in site.labels.store.preferences()] == ["said in a tunnel"]


def test_what_was_typed_survives_a_reload(task):
    page = task()
    page.keyboard.press("3")
    page.get_by_label("Why?").fill("half a thou")
    page.reload()
    assert page.get_by_label("Why?").input_value() == "half a thou"
    assert page.get_by_role("radio", name="A is slightly better").is_checked()


def test_task_that_others_completed_meanwhile_is_not_stored(task, site):
    """R-AN-3: the lease expires while the form is open."""
    page = task()
    with site.database.writing() as db:
        db.execute("UPDATE page_claims SET leased_until = 0")
    for other in ("bob", "cleo"):
        assert site.tasks.claim(1, other) == 1
        site.labels.record(1, other, Submission("label", f"key of {other}", 0, 4))
    page.keyboard.press("1")
    page.get_by_label("Why?").fill("too late")
    page.get_by_role("button", name="Store and go on").click()
    page.get_by_text("others have completed this task").wait_for()
    assert page.get_by_label("Why?").input_value() == "too late"
    assert len(stored(site)) == 2
    page.get_by_role("button", name="Leave it and go on").click()
    page.get_by_role("heading", name="Projects").wait_for()


def test_better_answer_begins_with_one_of_the_two(task, site):
    page = task()
    page.get_by_text("Write a better answer").click()
    page.get_by_role("button", name="Begin with A").click()
    area = page.get_by_label("A better answer")
    area.press("End")
    area.fill(area.input_value() + " And unplug it first.")
    page.get_by_role("button", name="Begin with B").focus()
    page.get_by_role("radio", name="About the same").check()
    page.get_by_role("radio", name="honest: B").check()
    page.get_by_role("button", name="Store and go on").click()
    page.wait_for_url("**/task/2")
    with site.database.reading() as db:
        event = db.execute("SELECT * FROM page_events").fetchone()
        (found,) = preferences(db, 1)
    assert event["answer"].endswith(" And unplug it first.")
    assert found.criteria["honest"] in (0.0, 1.0)


def test_hostile_texts_stay_text(enter, site):
    """R-AN-6: as prompt, answers, reason, project, guidelines and in every list of them."""
    assert len(HOSTILE) >= 100
    names = [" ".join(text.split())[:80] or "x" for text in HOSTILE]
    page = enter("ada", "admin").new_page()
    number = site.projects.create(
        names[0], ProjectSettings(guidelines="\n\n".join(HOSTILE)), "x"
    ).id
    tasks = [
        {"id": text, "prompt": [{"role": "user", "content": text}], "a": text, "b": f"{text} b"}
        for text in HOSTILE
    ]
    turns = [{"role": "user", "content": text} for text in HOSTILE]
    tasks.append({"id": "all", "prompt": turns, "a": "<b>x</b>" * 9, "b": "y" * 1_000_000})
    site.projects.add(number, tasks, "x")
    allowed = set(ALLOWED.split())
    with site.database.writing() as db:
        for task in range(1, len(tasks) + 1):
            for who in ("ada", "bob"):
                db.execute("INSERT INTO page_claims VALUES (?, ?, 1, 0, 0, 0)", (task, who))
    for task, text in enumerate([*HOSTILE, "all"], 1):
        page.goto(f"/project/{number}/task/{task}")
        tags = page.eval_on_selector_all(".text *", "all => [...new Set(all.map(e => e.tagName))]")
        assert set(tags) <= allowed, text
        # What stands around the texts is what stands around harmless ones.
        assert page.locator("form").count() == 2, text
        assert page.locator("script").count() == 3, text
        assert page.locator(".text").count() == (len(HOSTILE) if text == "all" else 1) + 2
    for task, text in enumerate(HOSTILE, 1):
        for who, choice in (("ada", 1), ("bob", 7)):
            said = Submission("label", f"{who} {task} key", 0, choice, rationale=text, answer=text)
            site.labels.record(task, who, said)
        said = Submission("flag", f"{who} {task} flag", 1, rationale=text)
        site.labels.record(task, who, said)
    paths = ["", "history", "guidelines", f"task/{len(HOSTILE) // 2}"]
    places = [f"/project/{number}/{path}".rstrip("/") for path in paths]
    places += ["/", f"/review/{number}", f"/review/{number}/task/3", "/admin", "/admin/audit"]
    for place in [*places, f"/admin/project/{number}"]:
        assert page.goto(place).status == 200, place
        assert page.locator("script:not([src])").count() == 0
        assert page.locator("iframe, object, embed, svg, style, base, img").count() == 0
    export = page.request.get(f"/export/{number}/preferences.jsonl").text()
    assert len(export.split("\n")) == len(HOSTILE) * 2 + 1
    assert [json.loads(line)["rationale"] for line in export.split("\n")[:-1]][::2] == HOSTILE


def test_error_from_the_server_is_text(enter, site):
    """R-AN-6: what the server complains about may hold what somebody typed."""
    page = enter("boss", "admin").new_page()
    site.projects.create("<img src=x onerror=alert(1)>", ProjectSettings(), "x")
    page.goto("/admin")
    form = page.locator('form[data-api="/api/admin/projects"]')
    form.get_by_label("Name").fill("<img src=x onerror=alert(1)>")
    form.get_by_role("button").click()
    page.get_by_text("there is a project <img src=x onerror=alert(1)> already").wait_for()
    assert page.locator("img").count() == 0


def test_admin_makes_a_project_and_invites_somebody_who_joins(enter, site, tmp_path, chromium, url):
    file = tmp_path / "<img src=x onerror=alert(1)>.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(3)))
    page = enter("boss", "admin").new_page()
    page.goto("/admin")
    form = page.locator('form[data-api="/api/admin/projects"]')
    form.get_by_label("Name").fill("Kettles")
    form.get_by_role("button").click()
    page.get_by_role("heading", name="Kettles").wait_for()
    page.get_by_label("Add tasks from a file").set_input_files(file)
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_text("3 tasks, 0 of them gold").wait_for()
    page.goto("/admin")
    page.get_by_role("button", name="Make a link").click()
    page.get_by_text("/invite/").wait_for()
    link = page.get_by_text("/invite/").inner_text()
    stranger = chromium.new_context()
    join = stranger.new_page()
    join.goto(link)
    join.get_by_label("Name").fill("dora")
    join.get_by_label("Password").fill("a long enough password")
    join.get_by_role("button", name="Join").click()
    join.get_by_role("link", name="Kettles").click()
    join.get_by_role("button", name="Begin").click()
    join.wait_for_url("**/task/*")
    join.get_by_role("button", name="Log out").click()
    join.wait_for_url("**/login")
    join.get_by_label("Name").fill("dora")
    join.get_by_label("Password").fill("not her password")
    join.get_by_role("button", name="Log in").click()
    join.get_by_text("The name or the password is wrong.").wait_for()
    stranger.close()


def disagree(site, people=("ada", "bob", "cleo")):
    """Labels with some conflicts, so that the pages of quality have something to show."""
    for turn, who in enumerate(people):
        while (task := site.tasks.claim(1, who)) is not None:
            choice = 1 + (task + turn * (task % 3 == 0) * 4) % 7
            site.labels.record(task, who, Submission("label", f"{who} {task} key", 0, choice))


def test_reviewer_settles_a_conflict(enter, site, project):
    project(9)
    disagree(site)
    page = enter("rita", "reviewer").new_page()
    page.goto("/review/1")
    page.get_by_role("link", name=re.compile("Task")).first.click()
    page.wait_for_url("**/review/1/task/*")
    page.keyboard.press("2")
    page.get_by_role("button", name="Settle").click()
    page.wait_for_url("**/review/1")
    page.get_by_text("settled").wait_for()
    assert "rita" in {p.annotator for p in site.labels.store.preferences()}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {"color_scheme": "light"}),
        ("dark", {"color_scheme": "dark"}),
        (
            "phone",
            {
                "viewport": {"width": 390, "height": 844},
                "device_scale_factor": 2,
                "has_touch": True,
            },
        ),
        ("phone-dark", {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}),
    ],
)
def test_pages_fit_and_can_be_read(task, enter, site, picture, name, options):
    """R-AN-13: nothing sticks out, every control has a name, text has contrast, in each theme."""
    page = task("ada", **options)
    page.keyboard.press("2")
    picture(page, f"task-{name}")
    check(page)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    picture(page, f"task-end-{name}")
    disagree(site, ("bob", "cleo"))
    boss = enter("boss", "admin", **options).new_page()
    places = {
        "home": "/",
        "project": "/project/1",
        "guidelines": "/project/1/guidelines",
        "review": "/review/1",
        "admin": "/admin",
        "settings": "/admin/project/1",
        "audit": "/admin/audit",
        "settle": "/review/1/task/3",
        "missing": "/nowhere",
    }
    for place, path in places.items():
        boss.goto(path)
        picture(boss, f"{place}-{name}")
        check(boss)
    boss.context.clear_cookies()
    boss.goto("/login")
    picture(boss, f"login-{name}")
    check(boss)


def test_theme_can_be_chosen_and_stays(task):
    page = task(color_scheme="light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Light or dark colours").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark != light


def check(page):
    assert page.evaluate(FAULTS) == [], page.url
