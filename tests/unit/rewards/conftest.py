"""A reward service that does what a test tells it, on loopback."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

TOKEN = "a token of sufficient length"


class ScriptedService(ThreadingHTTPServer):
    """Scores a text by its length; `script` says what it does instead with the next requests."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.version = "one"
        self.max_items = 1000
        self.script: list[Callable[[_Handler, list[dict[str, Any]]], None]] = []
        self.always: Callable[[_Handler, list[dict[str, Any]]], None] = _Handler.score
        self.asked: list[list[str]] = []
        """Texts of each request that was made."""
        self.ended = threading.Event()

    def handle_error(self, request, client_address) -> None:
        """Says nothing: clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedService

    def log_message(self, format, *args) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.reply({"detail": "wrong token"}, status=401)
            return
        self.reply({"version": self.server.version, "max_items": self.server.max_items})

    def do_POST(self) -> None:
        items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["items"]
        self.server.asked.append([item["completion"]["text"] for item in items])
        step = self.server.script.pop(0) if self.server.script else self.server.always
        step(self, items)

    def rows(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {"id": item["id"], "status": "ok", "value": len(item["completion"]["text"])}
            for item in items
        ]

    def score(self, items: list[dict[str, Any]]) -> None:
        self.reply({"version": self.server.version, "scores": self.rows(items)})

    def reply(self, body: Any, status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with ScriptedService() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.ended.set()
        made.shutdown()
        thread.join()
