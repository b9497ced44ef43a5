"""A site on a database of its own, people in it, and a real server on loopback."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage.feedback.server.auth import Accounts, LoginLimits, Person
from tutelage.feedback.server.projects import ProjectSettings
from tutelage.feedback.server.serve import open_site
from tutelage.feedback.server.web import Site


def task_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Comparisons, as they are imported."""
    return [
        {
            "id": f"c{n}",
            "prompt": [{"role": "user", "content": f"question {n}?"}],
            "a": f"first answer to {n}",
            "b": f"second answer to {n}",
        }
        for n in range(start, start + count)
    ]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "labels.sqlite"


@pytest.fixture
def site(database: Path) -> Iterator[Site]:
    with open_site(database) as opened:
        yield opened


@pytest.fixture
def person(site: Site) -> Callable[..., Person]:
    """Adds somebody without the price of a password."""

    def add(name: str, role: str = "annotator") -> Person:
        with site.database.writing() as db:
            row = (name, role, "scrypt$00$00", 0.0)
            db.execute(
                "INSERT INTO page_people (name, role, password, created) VALUES (?, ?, ?, ?)", row
            )
        return Person(name, role)  # type: ignore[arg-type]

    return add


@pytest.fixture
def project(site: Site) -> Callable[..., int]:
    """Makes a project of so many comparisons and returns its number."""
    made = 0

    def make(tasks: int = 3, **settings: Any) -> int:
        nonlocal made
        made += 1
        number = site.projects.create(f"project {made}", ProjectSettings(**settings), "x").id
        site.projects.add(number, task_rows(tasks, start=1000 * (made - 1)), "x")
        return number

    return make


class Browser:
    """A client that behaves as our own script does in a browser."""

    def __init__(self, url: str, site: Site, person: Person | None) -> None:
        import httpx2

        self.url = url
        port = url.rpartition(":")[2]
        cookies, self.csrf = {}, ""
        if person is not None:
            secret = site.accounts.begin(person)
            cookies = {f"tutelage-{port}": secret}
            session = site.accounts.session(secret)
            assert session is not None
            self.csrf = session.csrf
        self.http = httpx2.Client(base_url=url, cookies=cookies, trust_env=False, timeout=60)

    def get(self, path: str, **headers: str) -> Any:
        return self.http.get(path, headers=headers)

    def post(self, path: str, body: object = None, **headers: str) -> Any:
        sent = {"Origin": self.url, "X-CSRF-Token": self.csrf, "Content-Type": "application/json"}
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        return self.http.post(path, content=content, headers={**sent, **headers})


@pytest.fixture
def served(site: Site) -> Iterator[str]:
    """The URL of a server on the site, whose logins are hardly limited."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    from dataclasses import replace

    from tutelage.feedback.server.app import application

    free = Accounts(site.database, LoginLimits(10**6, 10**6))
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    config = uvicorn.Config(application(replace(site, accounts=free)), log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def browser(served: str, site: Site) -> Iterator[Callable[[Person | None], Browser]]:
    opened: list[Browser] = []

    def open_browser(person: Person | None = None) -> Browser:
        opened.append(Browser(served, site, person))
        return opened[-1]

    yield open_browser
    for each in opened:
        each.http.close()
