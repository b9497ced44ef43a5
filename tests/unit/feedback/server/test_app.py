"""The application over real connections: who may do what, and what is refused."""

import json
import re

import pytest

from tutelage.errors import ConfigError
from tutelage.feedback.server.app import CONTENT_SECURITY_POLICY, ROUTES
from tutelage.feedback.server.serve import open_site, require_safe_url

pytest.importorskip("httpx2")

MODEL = "secret-model-7b"

# What each role gets on each route: nobody, annotator, reviewer, admin. The task is ada's, whose
# claim nobody else shares: 404 is what others see.
MATRIX = {
    "GET /health": (200, 200, 200, 200),
    "GET /login": (200, 303, 303, 303),
    "POST /api/login": (401, 401, 401, 401),
    "GET /invite/{secret}": (404, 404, 404, 404),
    "POST /api/invite/{secret}": (422, 422, 422, 422),
    "GET /": (303, 200, 200, 200),
    "POST /api/logout": (401, 200, 200, 200),
    "GET /project/{project}": (303, 200, 200, 200),
    "POST /api/project/{project}/next": (401, 200, 200, 200),
    "GET /project/{project}/task/{task}": (303, 404, 404, 404),
    "POST /api/task/{task}": (401, 404, 404, 404),
    "GET /project/{project}/history": (303, 200, 200, 200),
    "GET /project/{project}/guidelines": (303, 200, 200, 200),
    "GET /review/{project}": (303, 403, 200, 200),
    "GET /review/{project}/task/{task}": (303, 403, 200, 200),
    "POST /api/review/task/{task}": (401, 403, 200, 200),
    "GET /admin": (303, 403, 403, 200),
    "POST /api/admin/projects": (401, 403, 403, 200),
    "GET /admin/project/{project}": (303, 403, 403, 200),
    "POST /api/admin/project/{project}": (401, 403, 403, 200),
    "POST /api/admin/project/{project}/tasks": (401, 403, 403, 200),
    "POST /api/admin/invitations": (401, 403, 403, 200),
    "POST /api/admin/person/{name}": (401, 403, 403, 200),
    "GET /admin/audit": (303, 403, 403, 200),
    "GET /export/{project}/{file}": (303, 403, 403, 200),
}
BODIES = {
    "POST /api/login": {"name": "x", "password": "y"},
    "POST /api/task/{task}": {"action": "label", "key": "0123456789", "choice": 1},
    "POST /api/review/task/{task}": {"action": "settle", "key": "0123456789", "choice": 1},
    "POST /api/admin/projects": {"name": "new"},
    "POST /api/admin/project/{project}/tasks": {
        "tasks": '{"id":"n","prompt":[{"role":"user","content":"q"}],"a":"x","b":"y"}\n'
    },
    "POST /api/admin/invitations": {"role": "annotator"},
    "POST /api/admin/person/{name}": {"role": "annotator", "active": True},
}
PLACES = {"project": "1", "task": "1", "secret": "x", "name": "ada", "file": "preferences.jsonl"}


def filled(path):
    """A path with its parts named."""
    return re.sub(r"{(\w+)}", lambda match: PLACES[match[1]], path)


@pytest.fixture
def people(person):
    roles = ("annotator", "reviewer", "admin")
    return [None, *(person(f"{role}-one", role) for role in roles)]


def test_every_route_has_its_row_in_the_matrix():
    """R-AN-7: a route without an entry fails here."""
    assert {f"{route.method} {route.path}" for route in ROUTES} == MATRIX.keys()


def test_everybody_gets_what_the_matrix_says(site, people, person, project, browser):
    """R-AN-7: role x route x somebody else's object."""
    project(1, quota=1)
    person("ada")
    site.tasks.claim(1, "ada")
    found = {}
    for name in MATRIX:
        method, path = name.split(" ")
        concrete = filled(path)
        # A new session each time: logging out ends it.
        found[name] = tuple(
            (
                client.get(concrete) if method == "GET" else client.post(concrete, BODIES.get(name))
            ).status_code
            for client in map(browser, people)
        )
    assert found == MATRIX


def test_task_of_somebody_else_is_not_there(site, person, project, browser):
    """R-AN-7: the path is right, the object is not one's own."""
    project(2, quota=1)
    ada, bob = person("ada"), person("bob")
    site.tasks.claim(1, "ada")
    said = {"action": "label", "key": "0123456789", "choice": 1}
    assert browser(bob).get("/project/1/task/1").status_code == 404
    assert browser(bob).post("/api/task/1", said).status_code == 404
    assert browser(ada).get("/project/1/task/1").status_code == 200
    assert browser(ada).get("/project/2/task/1").status_code == 404


@pytest.fixture
def ada(site, person, project, browser):
    project(3, quota=2)
    client = browser(person("ada"))
    assert client.post("/api/project/1/next").json() == {"to": "/project/1/task/1"}
    return client


SAID = {"action": "label", "key": "0123456789", "choice": 2, "expected": 0}


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "guess"},
    ],
)
def test_request_from_another_page_changes_nothing(site, ada, headers):
    """R-AN-5."""
    answer = ada.post("/api/task/1", SAID, **headers)
    assert answer.status_code == 403
    assert len(site.labels.store) == 0


def test_request_without_origin_changes_nothing(site, ada):
    """R-AN-5."""
    headers = {"Content-Type": "application/json", "X-CSRF-Token": ada.csrf}
    answer = ada.http.post("/api/task/1", content=json.dumps(SAID), headers=headers)
    assert answer.status_code == 403
    assert len(site.labels.store) == 0


def test_token_of_an_earlier_session_is_worth_nothing(site, ada, person, browser):
    """R-AN-5: replayed token."""
    from tutelage.feedback.server.auth import Person

    again = browser(Person("ada", "annotator"))
    again.csrf = ada.csrf
    assert again.post("/api/task/1", SAID).status_code == 403
    ada.post("/api/logout")
    assert ada.post("/api/task/1", SAID).status_code == 401
    assert len(site.labels.store) == 0


@pytest.mark.parametrize("path", [r.path for r in ROUTES if r.method == "POST"])
def test_nothing_is_done_by_looking(site, ada, path):
    """R-AN-5: GET with side effect."""
    assert ada.get(filled(path)).status_code == 405
    assert len(site.labels.store) == 0


def test_pages_that_are_read_change_nothing(site, ada):
    """R-AN-5: every GET leaves the page's tables as they are."""

    def dump():
        with site.database.reading() as db:
            tables = ("claims", "events", "tasks", "projects", "people", "sessions")
            return [list(map(tuple, db.execute(f"SELECT * FROM page_{t}"))) for t in tables]

    before = dump()
    for route in ROUTES:
        if route.method == "GET":
            ada.get(filled(route.path))
    assert dump() == before


def test_server_answers_to_its_own_name_alone(ada):
    """Names made to point at this machine are not ours."""
    assert ada.get("/", Host="evil.example").status_code == 421
    assert ada.get("/static/page.js", Host="evil.example").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/login",
        "/nowhere",
        "/api/nowhere",
        "/static/page.js",
        "/static/../app.py",
        "/project/1/task/1",
        "/project/x",
        "/health",
    ],
)
def test_every_answer_carries_the_headers(ada, path):
    headers = ada.get(path).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"


def test_pages_hold_no_inline_script_style_or_handler(ada):
    for path in ("/", "/project/1", "/project/1/task/1", "/project/1/history", "/login"):
        text = ada.get(path).text
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", text)
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)


def test_cookie_is_out_of_reach_of_scripts_and_other_sites(site, browser):
    secret = site.accounts.invite("annotator", "boss")
    client = browser()
    joined = client.post(f"/api/invite/{secret}", {"name": "ada", "password": "long enough one"})
    cookie = joined.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    right = client.post("/api/login", {"name": "ada", "password": "long enough one"})
    wrong = client.post("/api/login", {"name": "ada", "password": "wrong wrong wrong"})
    nobody = client.post("/api/login", {"name": "eve", "password": "wrong wrong wrong"})
    assert right.headers["set-cookie"].split(";")[0] != cookie.split(";")[0]
    assert (wrong.status_code, wrong.text) == (nobody.status_code, nobody.text)


def test_behind_an_https_proxy_the_cookie_is_for_this_host_alone(database):
    from starlette.responses import Response

    from tutelage.feedback.server.app import _Gate

    with open_site(database, "https://label.example.org") as site:
        gate = _Gate(site)
        response = Response()
        gate._set_cookie(None, response, "x")
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-tutelage=x;")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie


def test_stale_form_gets_409_with_what_is_stored(site, ada):
    """R-AN-3, R-AN-4."""
    first = ada.post("/api/task/1", {**SAID, "rationale": "first"})
    assert (first.status_code, first.json()["to"]) == (200, "/project/1/task/2")
    second = ada.post("/api/task/1", {**SAID, "key": "another key", "choice": 6})
    assert second.status_code == 409
    assert second.json()["stored"]["choice"] == 2
    assert second.json()["stored"]["rationale"] == "first"
    third = {**SAID, "key": "another key", "choice": 6, "expected": second.json()["version"]}
    assert ada.post("/api/task/1", third).status_code == 200
    assert [event.version for event in site.labels.store.events()] == [1, 2]


def test_retry_is_answered_as_the_first_time(site, ada):
    answers = [ada.post("/api/task/1", SAID).json() for _ in range(3)]
    assert {answer["version"] for answer in answers} == {1}
    assert [answer["again"] for answer in answers] == [False, True, True]
    assert len(site.labels.store) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"[" * 100_000,
        b'{"action": 3}',
        b'{"action":"label","key":"0123456789","choice":true}',
        b'{"action":"label","key":"0123456789","choice":1e400}',
        b'{"action":"settle","key":"0123456789","choice":1}',
        b'{"action":"label","key":"0123456789","choice":1,"criteria":[1]}',
    ],
)
def test_body_that_says_nothing_is_refused_in_words(site, ada, body):
    answer = ada.post("/api/task/1", body)
    assert answer.status_code in (404, 422)
    assert answer.json()["error"]
    assert len(site.labels.store) == 0


def test_body_without_end_is_not_held(ada):
    assert ada.post("/api/task/1", b'"' + b"x" * (3 << 20)).status_code == 413


def test_annotators_never_see_which_model_wrote(site, person, browser):
    """R-AN-11: ids and sources may name it; pages for annotators do not."""
    from tutelage.feedback.server.projects import ProjectSettings

    number = site.projects.create("blind", ProjectSettings(), "x").id
    row = {
        "id": f"{MODEL}/0-1",
        "prompt": [{"role": "user", "content": "q"}],
        "a": "x",
        "b": "y",
        "source": MODEL,
        "category": MODEL,
        "prompt_id": MODEL,
    }
    site.projects.add(number, [row, {**row, "id": f"{MODEL}/0-2", "gold": 1.0}], "x")
    client = browser(person("ada"))
    answers = [client.post(f"/api/project/{number}/next"), client.post("/api/task/1", SAID)]
    for route in ROUTES:
        if route.method == "GET":
            answers.append(client.get(filled(route.path)))
    answers += [client.get(f"/project/{number}/task/1"), client.get(f"/project/{number}/history")]
    assert sum(answer.status_code == 200 for answer in answers) >= 6
    for answer in answers:
        assert MODEL not in answer.text + str(answer.headers)
        assert "gold" not in answer.text.lower()


def test_export_is_a_file_with_a_plain_name_and_leaves_a_trace(site, person, browser, ada):
    from tutelage.feedback.server.projects import ProjectSettings

    ada.post("/api/task/1", SAID)
    boss = browser(person("boss", "admin"))
    answer = boss.get("/export/1/preferences.jsonl")
    assert json.loads(answer.text)["annotator"] == "ada"
    assert answer.headers["content-disposition"].endswith('"project-1-preferences.jsonl"')
    nasty = site.projects.create('"><script>\u202e.exe', ProjectSettings(), "x").id
    named = boss.get(f"/export/{nasty}/preferences.csv").headers["content-disposition"]
    assert named == 'attachment; filename="script-exe-preferences.csv"'
    assert "sha256" in boss.get("/admin/audit").text


def test_import_that_fails_names_the_line_and_adds_nothing(site, person, project, browser):
    project(0)
    boss = browser(person("boss", "admin"))
    good = '{"id":"1","prompt":[{"role":"user","content":"q"}],"a":"x","b":"y"}\n'
    answer = boss.post("/api/admin/project/1/tasks", {"tasks": good + "{broken\n"})
    assert answer.status_code == 422
    assert "tasks:2: not JSON" in answer.json()["error"]
    assert site.projects.progress(1).tasks == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_address_that_others_can_reach_needs_the_url_they_use(host):
    with pytest.raises(ConfigError, match="give --url"):
        require_safe_url(host, "")
    require_safe_url(host, "https://label.example.org")


@pytest.mark.parametrize("url", ["label.example.org", "ftp://x", "https://x/path", "https://"])
def test_url_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="--url is like"):
        require_safe_url("127.0.0.1", url)


def test_store_by_url_is_refused_in_words():
    with pytest.raises(ConfigError, match="SQLite file"), open_site("postgresql://x/y"):
        pass
