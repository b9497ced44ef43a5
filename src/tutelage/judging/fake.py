"""An OpenAI-compatible endpoint that says what it is told to, on loopback: a double for tests.

    with FakeEndpoint(prefers(len)) as endpoint:
        EndpointModel("fake", endpoint.url, "none")

Requests come over real connections, and what goes wrong goes wrong on the wire: `script` holds
what it does with the next requests instead of answering.
"""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["Failure", "FakeEndpoint", "Spoken", "fenced", "fields_of", "prefers"]

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Spoken:
    """A reply, token by token."""

    text: str
    likeliest: tuple[Mapping[str, float], ...] = ()
    """Of each token, the likeliest in its place with their probabilities; the reply's own tokens
    are the first of each. Without, the reply has no log-probabilities."""
    usage: tuple[int, int] | None = (100, 1)
    """Tokens of the prompt and of the reply, as the endpoint counts them."""


@dataclass
class Failure:
    """An answer that is none."""

    status: int = 500
    body: bytes = b'{"error": {"message": "scripted"}}'
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """To wait before it."""
    hang_up: bool = False
    """Close the connection instead."""


class FakeEndpoint(ThreadingHTTPServer):
    """Answers `POST /v1/chat/completions`, and `/v1/decisions` with one choice."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[Body], Spoken], *, logprobs: bool = True) -> None:
        """Listens at a free port.

        Args:
            answer: what is replied to the body of a request.
            logprobs: whether replies come with log-probabilities where they are asked for.
        """
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.answer, self.logprobs = answer, logprobs
        self.token = "none"
        self.model: str | None = None
        """The only model there is; None for any."""
        self.seconds = 0.0
        """That an answer takes."""
        self.script: list[Failure] = []
        self.bodies: list[dict[str, Any]] = []
        """Of every request that was made."""
        self.most_at_once = 0
        self._at_once = 0
        self._turn = threading.Lock()
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients that hang up are part of the tests."""

    def respond(self, body: dict[str, Any]) -> Failure:
        """Notes the request, and says what goes back."""
        with self._turn:
            self.bodies.append(body)
            step = self.script.pop(0) if self.script else None
        if step is not None:
            return step
        if self.model not in (None, body["model"]):
            missing = {"error": {"message": f"The model `{body['model']}` does not exist."}}
            return Failure(404, json.dumps(missing).encode())
        if "questions" in body:
            asked = {**body, "messages": body["input"]}
            content = json.dumps(_decision(self.answer(asked))).encode()
        else:
            content = json.dumps(_completion(self.answer(body), body, self.logprobs)).encode()
        return Failure(200, content, seconds=self.seconds)

    def enter(self, change: int) -> None:
        """Counts requests under way."""
        with self._turn:
            self._at_once += change
            self.most_at_once = max(self.most_at_once, self._at_once)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeEndpoint

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            self._send(Failure(401, b'{"error": {"message": "wrong token"}}'))
        elif self.path not in ("/v1/chat/completions", "/v1/decisions"):
            self._send(Failure(404, b'{"error": {"message": "no such path"}}'))
        else:
            self.server.enter(1)
            try:
                self._send(self.server.respond(body))
            finally:
                self.server.enter(-1)

    def _send(self, answer: Failure) -> None:
        time.sleep(answer.seconds)
        if answer.hang_up:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)


def _completion(spoken: Spoken, body: Body, gives_logprobs: bool) -> dict[str, Any]:
    logprobs = None
    if gives_logprobs and body.get("logprobs") and spoken.likeliest:
        most = body["top_logprobs"]
        logprobs = {"content": [_place(place, most) for place in spoken.likeliest]}
    usage = None
    if spoken.usage is not None:
        prompt, reply = spoken.usage
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": reply,
            "total_tokens": prompt + reply,
        }
    message = {"role": "assistant", "content": spoken.text}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
    row = {"id": "fake", "object": "chat.completion", "created": 0, "model": body["model"]}
    return row | {"choices": [choice], "usage": usage}


def _decision(spoken: Spoken) -> dict[str, Any]:
    answer: dict[str, Any] = {"type": "refusal"}
    if spoken.likeliest:
        rows = [{"value": text, "probability": p} for text, p in spoken.likeliest[0].items()]
        chances = {"confidence": 1.0, "probabilities": rows}
        answer = {"type": "choice", "choice": spoken.text, **chances}
    prompt, reply = spoken.usage or (0, 0)
    usage = {"input_tokens": prompt, "output_tokens": reply, "total_tokens": prompt + reply}
    return {"id": "fake", "object": "decision", "answers": [answer], "usage": usage}


def _place(likeliest: Mapping[str, float], most: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {"token": text, "logprob": math.log(probability), "bytes": None}
        for text, probability in likeliest.items()
        if probability > 0.0
    ]
    listed = sorted(rows, key=lambda row: -row["logprob"])[:most]
    return {**rows[0], "top_logprobs": listed}


def fields_of(body: Body) -> dict[str, str]:
    """The texts between the fences of a request, by their names, as a careful judge reads them."""
    system = body["messages"][0]["content"]
    found = re.search(r"lines in square brackets that carry the key (\w+)", system)
    return {} if found is None else fenced(body["messages"][1]["content"], found[1])


def fenced(text: str, key: str) -> dict[str, str]:
    """What stands between lines with the key, by name."""
    pattern = rf"^\[([\w ]+) {key}\]\n(.*?)\n\[end of \1 {key}\]$"
    return dict(re.findall(pattern, text, re.DOTALL | re.MULTILINE))


def prefers(
    utility: Callable[[str], float], *, bias: float = 0.0, mass: float = 1.0
) -> Callable[[Body], Spoken]:
    """A judge to whom an answer is worth `utility`: P(A) = sigmoid(u(A) - u(B) + bias).

    Asked about one answer, it gives the grade nearest to its utility. What is written in an
    answer does not reach it but through the utility.

    Args:
        utility: of an answer's text.
        bias: towards the answer that is shown first.
        mass: of both letters together.
    """

    def answer(body: Body) -> Spoken:
        if not body["messages"][-1]["content"].rstrip().endswith("and nothing else."):
            return Spoken("I have weighed both.", usage=(100, 4))
        texts = fields_of(body)
        if "answer" in texts:
            grade = str(max(1, min(10, round(utility(texts["answer"])))))
            return Spoken(grade, ({grade: 1.0},))
        gap = utility(texts["answer A"]) - utility(texts["answer B"]) + bias
        p_a = 1.0 / (1.0 + math.exp(-gap))
        both = {"A": mass * p_a, "B": mass * (1.0 - p_a), "I": 1.0 - mass}
        said = "A" if p_a >= 0.5 else "B"
        return Spoken(said, ({said: both.pop(said), **both},))

    return answer
