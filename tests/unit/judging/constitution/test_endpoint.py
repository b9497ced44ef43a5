"""The endpoint's writer over real connections, against a server of a few lines."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tutelage.errors import ConfigError, GenerationError
from tutelage.judging.constitution.endpoint import EndpointLimits, EndpointWriter
from tutelage.records import Message

pytest.importorskip("openai")

LIMITS = EndpointLimits(max_tokens=7, temperature=0.3, concurrency=4, retries=2, seconds=10.0)


def reply(text, finish="stop"):
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish,
    }
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


@pytest.fixture
def serve():
    """`serve(answer)`: a URL; `answer(request)` gives status and body, and sees how often."""
    running = []

    def start(answer):
        seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append({"path": self.path, "key": self.headers["Authorization"], **body})
                status, row = answer(body)
                data = json.dumps(row).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                # Without it the client pauses for half a second at least.
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/v1", seen

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def say(*texts):
    return [(Message("system", "s"), Message("user", text)) for text in texts]


@pytest.fixture
def writer():
    made = []

    def build(url, **options):
        made.append(EndpointWriter(url, "tiny", limits=LIMITS, **options))
        return made[-1]

    yield build
    for each in made:
        each.close()


def test_texts_come_back_in_the_order_of_the_conversations(serve, writer):
    url, seen = serve(lambda body: (200, reply(body["messages"][-1]["content"].upper())))
    texts = [f"text {i}" for i in range(20)]
    assert writer(url, key="k")(say(*texts)) == [text.upper() for text in texts]
    assert {row["path"] for row in seen} == {"/v1/chat/completions"}
    assert {row["key"] for row in seen} == {"Bearer k"}
    assert {(row["model"], row["max_tokens"], row["temperature"]) for row in seen} == {
        ("tiny", 7, 0.3)
    }
    assert seen[0]["messages"][0] == {"role": "system", "content": "s"}


def test_what_may_pass_is_asked_again(serve, writer):
    asked = Counter()

    def answer(body):
        text = body["messages"][-1]["content"]
        asked[text] += 1
        return (200, reply("ok")) if asked[text] == 3 else (503, {"error": {"message": "busy"}})

    url, _ = serve(answer)
    assert writer(url)(say("x", "y")) == ["ok", "ok"]
    assert asked == {"x": 3, "y": 3}


def test_one_failure_takes_its_own_place(serve, writer):
    def answer(body):
        kind = body["messages"][-1]["content"]
        return {
            "down": (500, {"error": {"message": "broken"}}),
            "long": (200, reply("half a sen", "length")),
            "none": (200, {**reply(""), "choices": []}),
        }.get(kind, (200, reply("fine")))

    url, _ = serve(answer)
    found = writer(url)(say("a", "down", "long", "none", "b"))
    assert found[0] == found[4] == "fine"
    assert all(isinstance(each, GenerationError) for each in found[1:4])
    assert "500" in str(found[1])
    assert str(found[2]) == "cut off at 7 tokens"
    assert "without a choice" in str(found[3])


@pytest.mark.parametrize("status", [401, 404])
def test_what_every_request_would_meet_ends_at_once(serve, writer, status):
    url, _ = serve(lambda body: (status, {"error": {"message": "wrong key"}}))
    with pytest.raises(GenerationError, match=rf"answered {status} for model 'tiny'.*wrong key"):
        writer(url)(say("x"))


def test_nobody_listening_is_a_failure_of_each(writer):
    found = writer("http://127.0.0.1:9/v1")(say("x"))
    assert "APIConnectionError" in str(found[0])


def test_key_that_is_named_must_be_set(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        EndpointWriter.with_key_from("NO_SUCH_KEY", "http://127.0.0.1:9/v1", "m")
    EndpointWriter.with_key_from("", "http://127.0.0.1:9/v1", "m").close()
