"""The service itself, over real connections: who may ask, and how much."""

import json
import socket
import threading
import time
from typing import ClassVar

import httpx2
import psutil
import pytest

from tutelage.errors import ConfigError
from tutelage.records import Completion, Message, Prompt, Score, ScoreStatus, StopReason
from tutelage.rewards import RemoteLimits, RemoteReward
from tutelage.rewards.service import RewardService, require_safe_address
from tutelage.rewards.wire import item_of

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

TOKEN = "a token of sufficient length"
ASKED = Prompt("p", (Message("user", "how are you?"),))
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def completion(text: str) -> Completion:
    return Completion("p", (5,), (-1.0,), text, StopReason.STOP_TOKEN)


def lengths(prompts, completions):
    failed = Score.failed(ScoreStatus.UNSCORABLE, "cannot read it")
    return [Score(float(len(c.text))) if c.text != "?" else failed for c in completions]


def body(*texts: str) -> dict[str, object]:
    items = [{"id": f"i{n}", **item_of(ASKED, completion(t))} for n, t in enumerate(texts)]
    return {"items": items}


@pytest.fixture
def serving():
    running = []

    def start(reward=lengths, **options) -> str:
        service = RewardService(reward, "lengths", "v1", TOKEN, **options)
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        settings = uvicorn.Config(service.app(), log_level="error", lifespan="on")
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread, listening))
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for server, thread, listening in running:
        server.should_exit = True
        thread.join()
        listening.close()


def post(url: str, content: object, **headers: str) -> httpx2.Response:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    with httpx2.Client(trust_env=False, timeout=30) as client:
        return client.post(f"{url}/v1/score", content=raw, headers={**BEARER, **headers})


def get(url: str, path: str, **headers: str) -> httpx2.Response:
    with httpx2.Client(trust_env=False, timeout=30) as client:
        return client.get(url + path, headers=headers)


def test_a_reward_and_its_service_say_the_same(serving):
    texts = ["fine.", "?", "", "not so well"]
    with RemoteReward(serving(), TOKEN, limits=RemoteLimits(batch_size=2)) as remote:
        found = remote([ASKED] * 4, list(map(completion, texts)))
    assert [score.value for score in found if score.ok] == [5.0, 0.0, 11.0]
    assert (found[1].status, found[1].notes) == (ScoreStatus.UNSCORABLE, "cannot read it")
    assert remote.version == "v1"


@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", TOKEN, f"bearer {TOKEN}x"])
def test_nobody_is_answered_without_the_token(serving, given):
    url = serving()
    headers = {} if given is None else {"Authorization": given}
    assert get(url, "/v1/version", **headers).status_code == 401
    raw = json.dumps(body("fine.")).encode()
    with httpx2.Client(trust_env=False, timeout=30) as client:
        answer = client.post(f"{url}/v1/score", content=raw, headers=headers)
    assert answer.status_code == 401
    assert TOKEN not in answer.text


def test_health_is_everybodys_and_says_nothing_else(serving):
    answer = get(serving(), "/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_version_comes_with_the_limits(serving):
    answer = get(serving(max_items=3, max_bytes=1000), "/v1/version", **BEARER)
    expected = {"name": "lengths", "version": "v1", "max_items": 3, "max_bytes": 1000}
    assert answer.json() == expected


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/"])
def test_there_is_no_other_page(serving, path):
    assert get(serving(), path, **BEARER).status_code == 404


def test_more_items_than_allowed_are_refused(serving):
    url = serving(max_items=2)
    assert post(url, body("a", "b")).status_code == 200
    answer = post(url, body("a", "b", "c"))
    assert answer.status_code == 422
    assert "at most 2" in answer.json()["detail"]


def test_body_beyond_the_limit_is_refused_and_not_held(serving):
    url = serving(max_bytes=10_000)
    assert post(url, body("x" * 5_000)).status_code == 200
    assert post(url, body("x" * 20_000)).status_code == 413

    def endless():
        for _ in range(10_000):
            yield b" " * 10_000

    with httpx2.Client(trust_env=False, timeout=30) as client:
        try:
            answer = client.post(f"{url}/v1/score", content=endless(), headers=BEARER)
            assert answer.status_code == 413
        except httpx2.TransportError:
            pass  # The service has hung up on what it does not want to read.
    assert post(url, body("fine.")).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"[" * 5_000,
        [],
        {},
        {"items": 3},
        {"items": [3]},
        {"items": [{}]},
        {"items": [{"id": 7, **body("a")["items"][0]} | {"id": 7}]},
        {"items": body("a")["items"] * 2},
        {"items": [{"id": "a", "prompt": {}, "completion": {}}]},
        {"items": [{**body("a")["items"][0], "completion": {"text": "a"}}]},
    ],
)
def test_request_that_is_none_is_refused_in_words(serving, content):
    answer = post(serving(), content)
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_reward_is_asked_by_one_request_at_a_time(serving):
    inside, most = [], []

    def slow(prompts, completions):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return lengths(prompts, completions)

    limits = RemoteLimits(batch_size=1, concurrency=8)
    with RemoteReward(serving(slow), TOKEN, limits=limits) as remote:
        texts = ["x" * n for n in range(16)]
        found = remote([ASKED] * 16, list(map(completion, texts)))
    assert [score.value for score in found] == list(range(16))
    assert set(most) == {1}


def test_requests_that_nobody_waits_for_cost_the_reward_nothing(serving):
    busy, go_on, read = threading.Event(), threading.Event(), []

    def slow(prompts, completions):
        read.extend(completion.text for completion in completions)
        busy.set()
        go_on.wait(30)
        return lengths(prompts, completions)

    url = serving(slow)
    first = threading.Thread(target=post, args=(url, body("first")))
    first.start()
    assert busy.wait(30)
    with RemoteReward(url, TOKEN, limits=RemoteLimits(item_seconds=2.0)) as impatient:
        (late,) = impatient([ASKED], [completion("given up")])
    assert late.status is ScoreStatus.TIMEOUT
    go_on.set()
    first.join()
    assert post(url, body("last")).status_code == 200
    assert read == ["first", "last"]


def test_reward_that_raises_is_tried_again(serving):
    calls = []

    def moody(prompts, completions):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("not now")
        return lengths(prompts, completions)

    with RemoteReward(serving(moody), TOKEN, limits=RemoteLimits(first_pause=0.01)) as remote:
        (score,) = remote([ASKED], [completion("fine.")])
    assert score.value == 5.0
    assert len(calls) == 2
    # A connection that the failed request left closed costs one more.
    assert 1 <= remote.counts["retries"] <= 2


class Timed(RemoteReward):
    """Notes how long each request takes, retries included."""

    seconds: ClassVar[list[float]] = []

    async def _ask(self, *request):
        begun = time.monotonic()
        try:
            return await super()._ask(*request)
        finally:
            self.seconds.append(time.monotonic() - begun)


@pytest.mark.soak
def test_ten_thousand_requests_lose_no_id_and_leave_nothing_behind(serving, capsys):
    limits = RemoteLimits(batch_size=1, concurrency=64)
    memory = []
    with Timed(serving(), TOKEN, limits=limits) as remote:
        for start in range(0, 10_000, 1_000):
            texts = ["x" * ((start + n) % 89) for n in range(1_000)]
            found = remote([ASKED] * 1_000, list(map(completion, texts)))
            assert [score.value for score in found] == [len(text) for text in texts]
            memory.append(psutil.Process().memory_info().rss / 2**20)
        late = sorted(remote.seconds)[int(0.99 * len(remote.seconds))]
    with capsys.disabled():
        print(f"99 % of the requests within {late:.3f} s, {memory[1]:.0f} to {memory[-1]:.0f} MiB")
    assert remote.counts["requests"] == 10_001
    assert memory[-1] < memory[1] + 20


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_address_that_others_can_reach_needs_a_token_that_was_set(host):
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        require_safe_address(host, None)
    require_safe_address(host, TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_own_address_needs_none(host):
    require_safe_address(host, None)


def test_short_token_is_refused_everywhere():
    with pytest.raises(ConfigError, match="15 characters, expected 16"):
        require_safe_address("127.0.0.1", "x" * 15)
