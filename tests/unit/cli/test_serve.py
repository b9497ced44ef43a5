"""`tutelage serve-reward` as its users meet it."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from tutelage.cli.main import main
from tutelage.records import Completion, Message, Prompt, StopReason
from tutelage.rewards import RemoteReward

pytest.importorskip("uvicorn")

ASKED = Prompt("p", (Message("user", "how are you?"),))
ANSWER = Completion("p", (5,), (-1.0,), "fine.", StopReason.STOP_TOKEN)


@pytest.fixture
def function(tmp_path):
    file = tmp_path / "rewards.py"
    file.write_text("def length(prompt, completion):\n    return len(completion.text)\n")
    return f"{file}:length"


def test_function_is_served_until_it_is_told_to_end(function):
    environment = {k: v for k, v in os.environ.items() if k != "TUTELAGE_REWARD_TOKEN"}
    command = [sys.executable, "-m", "tutelage", "serve-reward", function, "--port", "0"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **streams) as process, ExitStack() as cleanup:
        # Whatever goes wrong below, the test does not wait for a service that nobody ends.
        cleanup.callback(process.kill)
        name, url = process.stdout.readline().strip().split(", at ")
        variable, _, token = process.stdout.readline().strip().partition("=")
        assert name.startswith("length, version ")
        assert variable == "TUTELAGE_REWARD_TOKEN"
        with RemoteReward(url, token) as remote:
            assert remote([ASKED], [ANSWER])[0].value == 5.0
            assert name.endswith(f"version {remote.version}")
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate()
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert complaints == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines, and no token is set"),
        (["--port", "70000"], "--port is a number up to 65535"),
        (["--max-items", "0"], "above 0"),
    ],
)
def test_what_is_not_safe_is_refused(function, capsys, monkeypatch, arguments, complaint):
    monkeypatch.delenv("TUTELAGE_REWARD_TOKEN", raising=False)
    assert main(["serve-reward", function, *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_source_that_is_no_reward_is_named(tmp_path, capsys):
    assert main(["serve-reward", str(tmp_path)]) == 2
    assert "is no reward: expected a model's folder" in capsys.readouterr().err
