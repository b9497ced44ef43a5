"""The judge against a model that `transformers serve` runs: another implementation of the wire."""

import json
import os
import socket
import subprocess
import sys
import time

import httpx2
import pytest

from tutelage.judging import Asker, AskLimits, EndpointModel, JudgeSettings, ModelJudge, Rubric
from tutelage.records import Comparison, Message, Prompt

pytest.importorskip("openai")
pytest.importorskip("uvicorn")

PROMPT = Prompt("p", (Message("user", "how much is it?"),))


@pytest.fixture
def served(tiny_tokenizer, tiny_causal_lm, tmp_path):
    folder = tmp_path / "tiny"
    model = tiny_causal_lm(max_position_embeddings=4096)
    # Otherwise the server ignores the temperature that it is asked for, and all samples are alike.
    model.generation_config.do_sample = True
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Without the folder of its hub cache the server answers with errors.
    (tmp_path / "home" / "hub").mkdir(parents=True)
    offline = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = (tmp_path / "log").open("w")
    with (
        log,
        subprocess.Popen(
            command + options, env=os.environ | offline, stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield str(folder), _wait(f"http://127.0.0.1:{port}", process, tmp_path / "log")
        finally:
            process.kill()


def _wait(url: str, process: subprocess.Popen, log) -> str:
    until = time.monotonic() + 200
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx2.get(f"{url}/health", trust_env=False).status_code == 200:
                return f"{url}/v1"
        except httpx2.TransportError:
            time.sleep(0.5)
    pytest.fail(f"transformers serve did not start: {log.read_text()[-2000:]}")


@pytest.mark.slow
def test_random_model_is_asked_and_never_believed(served):
    """It gives no log-probabilities, and its samples are characters at random: no verdict.

    One in 150 of them is a label by chance (23 of 3,600); three of five would be needed.
    """
    model, url = served
    asker = Asker(
        EndpointModel(model, url, "none"), limits=AskLimits(concurrency=1, first_pause=0.05)
    )
    settings = JudgeSettings(samples=5, answer_tokens=4)
    with ModelJudge(asker, Rubric("short", "brief"), settings) as judge:
        (verdict,) = judge.judge([Comparison(PROMPT, "five", "six", "c")])
        (rating,) = judge.rate([PROMPT], ["five"])
        assert (verdict.p_a, verdict.failure) == (None, "unreadable")
        assert (rating.value, rating.failure) == (None, "unreadable")
        # Both orders and the rating: a request that finds out, and five samples, of each.
        assert asker.counts["requests"] <= 18
        assert asker.counts["failed"] == 0
        assert asker.spent.tokens > 1000
        assert judge.parse_rate == 0.0
        json.dumps(asker.model.identity)
