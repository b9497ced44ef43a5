"""Many people, two server processes, retries, and a server that is killed.

    16 threads ──HTTP──> server process 1 ┐
               └─HTTP──> server process 2 ┴──> one SQLite file

The servers are real processes on loopback. `make test-browser` runs the full sizes.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from tutelage.feedback.server.auth import Person
from tutelage.feedback.server.projects import ProjectSettings
from tutelage.feedback.server.serve import open_site

httpx2 = pytest.importorskip("httpx2")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

SERVER = """
import sys
from tutelage.feedback.server.serve import open_site, serve
with open_site(sys.argv[1]) as site:
    serve(site, "127.0.0.1", int(sys.argv[2]), lambda url: print(url, flush=True))
"""
QUOTA = 2
"""Labels per item."""


def rows(count):
    return [
        {"id": f"c{n}", "prompt": [{"role": "user", "content": f"{n}?"}], "a": "yes", "b": "no"}
        for n in range(count)
    ]


@contextmanager
def server(database, port=0):
    """A server process; yields (process, url)."""
    command = [sys.executable, "-c", SERVER, str(database), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def cookies(site):
    """Makes people with a session each; returns (session, CSRF token) by name."""

    def make(count):
        made = {}
        for n in range(count):
            name = f"p{n}"
            with site.database.writing() as db:
                row = (name, "annotator", "scrypt$00$00", 0.0)
                db.execute(
                    "INSERT INTO page_people (name, role, password, created) VALUES (?,?,?,?)", row
                )
            secret = site.accounts.begin(Person(name, "annotator"))
            made[name] = (secret, site.accounts.session(secret).csrf)
        return made

    return make


class Annotator(threading.Thread):
    """Labels until there is nothing left, now and then sending a label twice."""

    def __init__(self, name, session, urls, seed, give_up, thinking=0.02):
        super().__init__()
        self.thinking = thinking
        self.person, (self.secret, self.csrf) = name, session
        self.urls = urls
        self.random = random.Random(seed)
        self.give_up = give_up
        self.acknowledged = []
        self.seconds = []
        self.failures = []

    def run(self):
        try:
            with httpx2.Client(trust_env=False, timeout=60) as self.http:
                self.label_everything()
        except Exception as error:
            self.failures.append(repr(error))

    def label_everything(self):
        idle = 0
        while idle < 3 and not self.give_up.is_set():
            told = self.post("/api/project/1/next")
            if told is None or told[1]["to"] == "/project/1":
                idle += told is not None
                time.sleep(0.05)
                continue
            idle = 0
            time.sleep(self.random.random() * self.thinking)
            self.label(int(told[1]["to"].rpartition("/")[2]))

    def label(self, task):
        key = f"{self.random.getrandbits(64):016x}"
        said = {"action": "label", "key": key, "choice": self.random.randint(1, 7), "expected": 0}
        tries = 2 if self.random.random() < 0.1 else 1
        for _ in range(tries):
            answer = self.post(f"/api/task/{task}", said)
            if answer is not None and answer[0] == 200:
                self.acknowledged.append((task, self.person))
            elif answer is not None and answer[0] != 409:
                self.failures.append(f"{answer}")

    def post(self, path, body=None):
        url = self.random.choice(self.urls)
        headers = {
            "Origin": url,
            "X-CSRF-Token": self.csrf,
            "Cookie": f"tutelage-{url.rpartition(':')[2]}={self.secret}",
        }
        begun = time.perf_counter()
        try:
            answer = self.http.post(url + path, json=body or {}, headers=headers)
        except httpx2.TransportError:
            time.sleep(0.05)
            return None
        self.seconds.append(time.perf_counter() - begun)
        return answer.status_code, answer.json()


def labels_in(database):
    """(task, annotator) of every label, and of every preference."""
    with sqlite3.connect(database) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        events = db.execute("SELECT task, annotator FROM page_events").fetchall()
        published = db.execute(
            "SELECT page_tasks.id, annotator FROM feedback "
            "JOIN page_tasks ON page_tasks.comparison = feedback.comparison"
        ).fetchall()
    db.close()
    return events, published


@pytest.mark.slow
@pytest.mark.parametrize(
    ("items", "threads"),
    [(20, 8), pytest.param(300, 16, marks=pytest.mark.soak)],
)
def test_no_label_is_double_over_quota_or_lost(site, database, cookies, items, threads, capsys):
    """R-AN-1: 16 threads, 300 items, 2 labels each, 10 % retries, two server processes."""
    site.projects.create("load", ProjectSettings(quota=QUOTA, lease_seconds=1.0), "x")
    site.projects.add(1, rows(items), "x")
    never = threading.Event()
    with server(database) as (_, one), server(database) as (_, other):
        people = [
            Annotator(name, session, [one, other], seed, never)
            for seed, (name, session) in enumerate(cookies(threads).items())
        ]
        begun = time.perf_counter()
        for each in people:
            each.start()
        for each in people:
            each.join()
        took = time.perf_counter() - begun
    events, published = labels_in(database)
    acknowledged = {label for each in people for label in each.acknowledged}
    assert not [failure for each in people for failure in each.failures]
    assert len(events) == len(set(events)) == items * QUOTA
    assert Counter(task for task, _ in events) == dict.fromkeys(range(1, items + 1), QUOTA)
    assert acknowledged == set(events) == set(published)
    assert len(published) == items * QUOTA
    waits = sorted(seconds for each in people for seconds in each.seconds)
    with capsys.disabled():
        print(
            f"\n{len(events)} labels by {threads} threads through 2 processes in {took:.1f} s; "
            f"median request {1000 * waits[len(waits) // 2]:.0f} ms, "
            f"95 % within {1000 * waits[int(0.95 * len(waits))]:.0f} ms"
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("items", "kills"), [(30, 2), pytest.param(300, 10, marks=pytest.mark.soak)]
)
def test_server_that_is_killed_loses_nothing_acknowledged(
    site, database, cookies, items, kills, capsys
):
    """R-AN-2: kill -9 under load, restart, as often as said; then all the rest is labelled."""
    site.projects.create("load", ProjectSettings(quota=QUOTA, lease_seconds=1.0), "x")
    site.projects.add(1, rows(items), "x")
    dice = random.Random(0)
    stop = threading.Event()
    with server(database) as (process, url):
        port = int(url.rpartition(":")[2])
        people = [
            Annotator(name, session, [url], seed, stop)
            for seed, (name, session) in enumerate(cookies(6).items())
        ]
        for each in people:
            each.start()
        time.sleep(0.3 + dice.random())
        os.kill(process.pid, signal.SIGKILL)
    for turn in range(kills):
        with server(database, port) as (process, _):
            if turn < kills - 1:
                time.sleep(0.2 + dice.random())
                os.kill(process.pid, signal.SIGKILL)
            else:
                for each in people:
                    each.join(240)
                stop.set()
    events, _ = labels_in(database)
    acknowledged = {label for each in people for label in each.acknowledged}
    assert not [failure for each in people for failure in each.failures]
    assert acknowledged <= set(events)
    assert len(events) == len(set(events)) == items * QUOTA
    with open_site(database):
        pass
    events, published = labels_in(database)
    assert set(published) == set(events)
    with capsys.disabled():
        print(f"\n{kills} kills: {len(acknowledged)} acknowledged, {len(events)} stored, 0 lost")


@pytest.mark.soak
def test_fifty_people_hardly_wait(site, database, cookies, capsys):
    """R-AN-12: each thinks for up to six seconds; all requests of a minute's work."""
    site.projects.create("load", ProjectSettings(quota=QUOTA), "x")
    site.projects.add(1, rows(1000), "x")
    stop = threading.Event()
    with server(database) as (_, url):
        people = [
            Annotator(name, session, [url], seed, stop, thinking=6.0)
            for seed, (name, session) in enumerate(cookies(50).items())
        ]
        for each in people:
            each.start()
        time.sleep(40)
        stop.set()
        for each in people:
            each.join()
    assert not [failure for each in people for failure in each.failures]
    waits = sorted(seconds for each in people for seconds in each.seconds[1:])
    late = waits[int(0.95 * len(waits))]
    with capsys.disabled():
        print(
            f"\n50 people, {len(waits)} requests in 40 s: median "
            f"{1000 * waits[len(waits) // 2]:.0f} ms, 95 % within {1000 * late:.0f} ms"
        )
    assert late < 0.1
