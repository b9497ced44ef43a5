"""A writer behind an endpoint, over real connections, against a server of a few lines."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tutelage.errors import ConfigError, GenerationError
from tutelage.judging import Asker, AskLimits, Budget, EndpointModel, JudgeCache
from tutelage.judging.constitution import AskedWriter
from tutelage.judging.endpoint import token_from_environment
from tutelage.records import Message

pytest.importorskip("openai")

LIMITS = AskLimits(concurrency=4, seconds=10.0, retries=2, first_pause=0.01)


def reply(text, finish="stop"):
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish,
    }
    used = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    about = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    return {**about, "choices": [choice], "usage": used}


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

    def build(url, key="none", cache=None, budget=None):
        model = EndpointModel("tiny", url, key)
        asker = Asker(model, JudgeCache(cache), budget=budget, limits=LIMITS)
        made.append(AskedWriter(asker, max_tokens=7, temperature=0.3))
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
    assert "no chat completion" in str(found[3])


@pytest.mark.parametrize("status", [401, 404])
def test_what_every_request_would_meet_ends_at_once(serve, writer, status):
    url, _ = serve(lambda body: (status, {"error": {"message": "wrong key"}}))
    with pytest.raises(GenerationError, match=rf"tiny: .*wrong key|tiny: .*HTTP {status}"):
        writer(url)(say("x", "y"))


def test_nobody_listening_ends_at_once(writer):
    with pytest.raises(GenerationError, match=r"cannot be reached .*: is it running"):
        writer("http://127.0.0.1:9/v1")(say("x"))


def test_texts_are_kept_and_not_asked_for_again(serve, writer, tmp_path):
    url, seen = serve(lambda body: (200, reply(f"text {body['seed']}")))
    for _ in range(2):
        written = writer(url, cache=tmp_path / "replies.sqlite")(say("x", "x", "y"))
        # Equal conversations of one call are given texts of their own.
        assert written == ["text 0", "text 1", "text 0"]
    assert len(seen) == 3


def test_budget_ends_it_and_a_larger_one_goes_on(serve, writer, tmp_path):
    url, seen = serve(lambda body: (200, reply("fine")))
    cache = tmp_path / "replies.sqlite"
    texts = [f"text {i}" for i in range(30)]
    with pytest.raises(GenerationError, match=r"might exceed the budget.*run the same again"):
        writer(url, cache=cache, budget=Budget(200))(say(*texts))
    asked = len(seen)
    assert 0 < asked < 30
    assert writer(url, cache=cache, budget=Budget(10_000))(say(*texts)) == ["fine"] * 30
    assert len(seen) == 30


def test_key_that_is_named_must_be_set(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="set NO_SUCH_KEY in the environment"):
        token_from_environment("https://models.example/v1", "NO_SUCH_KEY")
    assert token_from_environment("https://models.example/v1", "") == "none"
    assert token_from_environment("http://127.0.0.1:9/v1", "NO_SUCH_KEY") == "none"
