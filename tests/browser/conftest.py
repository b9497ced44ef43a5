"""A real Chromium on a real server on loopback."""

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage.feedback.server.auth import Person
from tutelage.feedback.server.serve import open_site
from tutelage.feedback.server.web import Site

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""Debian's Chromium otherwise speaks to services of its maker."""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser; tests that want it are skipped where it is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path / "labels.sqlite") as opened:
        yield opened


@pytest.fixture
def url(site: Site) -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    from tutelage.feedback.server.app import application

    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    server = uvicorn.Server(uvicorn.Config(application(site), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


class Trouble:
    """What must never happen in a page: dialogs, errors, requests to elsewhere, CSP reports."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.found: list[str] = []

    def watch(self, page: Any) -> None:
        """Notes everything of a page that is not as it should be."""
        page.on("dialog", lambda dialog: (self.found.append("dialog"), dialog.dismiss()))
        page.on("pageerror", lambda error: self.found.append(f"error {error}"))
        page.on("request", self._request)
        page.on("console", self._console)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:,")):
            self.found.append(f"request {request.url[:200]}")

    def _console(self, message: Any) -> None:
        if "Content Security Policy" in message.text:
            self.found.append(message.text[:300])


@pytest.fixture
def enter(chromium: Any, url: str, site: Site) -> Iterator[Callable[..., Any]]:
    """Opens a browser in which a person is logged in; the test fails if there was trouble."""
    contexts: list[Any] = []
    trouble = Trouble(url)

    def add(name: str, role: str = "annotator", **options: Any) -> Any:
        with site.database.writing() as db:
            row = (name, role, "scrypt$00$00", 0.0)
            db.execute(
                "INSERT OR IGNORE INTO page_people (name, role, password, created) "
                "VALUES (?, ?, ?, ?)",
                row,
            )
        context = chromium.new_context(
            **{"viewport": {"width": 1280, "height": 860}, "base_url": url, **options}
        )
        contexts.append(context)
        context.set_default_timeout(20_000)
        secret = site.accounts.begin(Person(name, role))  # type: ignore[arg-type]
        cookie = {"name": f"tutelage-{url.rpartition(':')[2]}", "value": secret, "url": url}
        context.add_cookies([cookie])
        context.on("page", trouble.watch)
        return context

    yield add
    for context in contexts:
        context.close()
    assert not trouble.found


@pytest.fixture
def picture() -> Callable[[Any, str], None]:
    """Keeps a screenshot in the folder SCREENSHOTS, where that is set."""
    folder = os.environ.get("SCREENSHOTS")

    def take(page: Any, name: str) -> None:
        if folder:
            page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=False)

    return take
