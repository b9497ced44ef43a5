"""Functions that loop, hang, crash, fork and lie are ended, and the rest goes on."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.errors import ConfigError
from tutelage.records import Completion, Message, Prompt, Score, ScoreStatus, StopReason
from tutelage.rewards import FunctionProcess, function_process

ASKED = Prompt("p", (Message("user", "how are you?"),), reference="fine.")
FUNCTIONS = """
import ctypes, math, os, random, signal, sys, time

calls = 0

def reward(prompt, completion):
    global calls
    calls += 1
    match completion.text:
        case "loop":
            while True:
                pass
        case "native":
            ctypes.PyDLL(None).sleep(1000)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        case "child":
            if os.fork() == 0:
                time.sleep(1000)
            time.sleep(1000)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "print":
            print("noise")
            sys.stdin.read()
            return 7
        case "calls":
            return calls
        case "pid":
            return os.getpid()
        case "random":
            return random.random()
        case "none":
            return None
        case "nan":
            return math.nan
        case "word":
            return "x" * 10_000_000
        case "raise":
            raise KeyError("missing")
    return len(completion.text) + len(prompt.reference)

def gold(prompt, completion):
    import tutelage.worlds.helpdesk.gold
    return 1.0
"""


def completion(text: str) -> Completion:
    return Completion("p", (5, 6), (-0.1, -1 / 3), text, StopReason.STOP_TOKEN)


@pytest.fixture
def function(tmp_path):
    file = tmp_path / "rewards.py"
    file.write_text(FUNCTIONS)
    opened = []

    def start(name: str = "reward", **limits) -> FunctionProcess:
        opened.append(FunctionProcess(f"{file}:{name}", **limits))
        return opened[-1]

    yield start
    for process in opened:
        process.close()


def scores(reward: FunctionProcess, *texts: str) -> list[Score]:
    return reward([ASKED] * len(texts), [completion(text) for text in texts])


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.02)
    return holds()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("text", ["loop", "native", "stubborn", "child"])
def test_function_that_does_not_return_is_killed_at_its_deadline(function, text):
    reward = function(item_seconds=0.5)
    started = time.monotonic()
    pid, late = scores(reward, "pid", text)
    taken = time.monotonic() - started
    assert late.status is ScoreStatus.TIMEOUT
    assert late.notes == "reward: no answer in 0.5 s"
    # R-RW-6: the deadline and a second.
    assert 0.5 <= taken < 1.5
    assert not lives(int(pid.value))


def test_what_follows_a_killed_function_is_scored_by_a_fresh_process(function):
    reward = function(item_seconds=0.5)
    before, second, late, after = scores(reward, "calls", "calls", "loop", "calls")
    assert [before.value, second.value, late.ok, after.value] == [1.0, 2.0, False, 1.0]


def test_processes_that_a_function_starts_are_killed_with_it(function, tmp_path):
    reward = function(item_seconds=0.5)
    group = int(scores(reward, "pid")[0].value)
    scores(reward, "child")

    def empty() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    assert eventually(empty)


@pytest.mark.parametrize(("text", "how"), [("crash", "by SIGSEGV"), ("exit", "with exit code 3")])
def test_function_that_ends_its_process_fails_alone(function, text, how):
    crashed, fine = scores(function(), text, "fine.")
    assert crashed.status is ScoreStatus.ERROR
    assert crashed.notes == f"reward: its process ended {how}"
    assert fine.value == 10.0


def test_batch_ends_at_its_own_deadline(function):
    reward = function(item_seconds=30.0, batch_seconds=0.5)
    started = time.monotonic()
    fine, cut, never = scores(reward, "fine.", "loop", "fine.")
    assert time.monotonic() - started < 1.5
    assert fine.ok
    assert (cut.status, never.status) == (ScoreStatus.TIMEOUT, ScoreStatus.TIMEOUT)
    assert never.notes == "reward had not come to it when the batch's 0.5 s ended"


@pytest.mark.parametrize(
    ("text", "status", "notes"),
    [
        ("raise", ScoreStatus.ERROR, "reward raised KeyError('missing')"),
        ("none", ScoreStatus.UNSCORABLE, "reward returned None"),
        ("nan", ScoreStatus.NOT_FINITE, "reward returned nan, expected a finite number"),
        ("word", ScoreStatus.ERROR, "reward returned 'xxxx"),
    ],
)
def test_failures_are_typed_as_they_are_without_a_process(function, text, status, notes):
    odd, fine = scores(function(), text, "fine.")
    assert odd.status is status
    assert odd.notes.startswith(notes)
    assert len(odd.notes) <= 1000
    assert fine.value == 10.0


def test_what_a_function_prints_and_reads_stays_out_of_the_conversation(function):
    assert [score.value for score in scores(function(), "print", "fine.")] == [7.0, 10.0]


def test_records_arrive_as_they_were_sent(tmp_path):
    file = tmp_path / "same.py"
    file.write_text(
        "import hashlib\n"
        "def digest(prompt, completion):\n"
        "    text = repr((prompt, completion)).encode('utf-8', 'surrogatepass')\n"
        "    return int(hashlib.sha256(text).hexdigest()[:12], 16)\n"
    )
    with FunctionProcess(f"{file}:digest") as reward:

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.text(), st.text(), st.lists(st.floats(allow_nan=False, width=32)))
        def check(question: str, answer: str, logprobs: list[float]) -> None:
            prompt = Prompt("p", (Message("user", question),), reference=question)
            tokens = tuple(range(len(logprobs)))
            sent = Completion("p", tokens, tuple(logprobs), answer, StopReason.LENGTH)
            (score,) = reward([prompt], [sent])
            text = repr((prompt, sent)).encode("utf-8", "surrogatepass")
            assert score.value == int(hashlib.sha256(text).hexdigest()[:12], 16)

        check()


def test_random_numbers_follow_from_the_callers_whatever_happens_in_between(function):
    reward = function(item_seconds=0.5)
    random.seed(7)
    first = scores(reward, "random", "random", "random")
    random.seed(7)
    second = scores(reward, "random", "crash", "random")
    third = scores(reward, "random")
    assert [second[0], second[2]] == [first[0], first[2]]
    assert len({score.value for score in (*first, *third)}) == 4


def test_forbidden_module_cannot_be_imported(function):
    hidden = "tutelage.worlds.helpdesk.gold"
    assert scores(function("gold"), "fine.")[0].value == 1.0
    (score,) = scores(function("gold", forbidden=[hidden]), "fine.")
    assert score.status is ScoreStatus.ERROR
    assert hidden in score.notes


def test_process_ends_with_the_one_that_started_it(function, tmp_path):
    # The module alone: its package would import torch.
    script = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("alone", {function_process.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from tutelage.records import Completion, Message, Prompt, StopReason
reward = module.FunctionProcess({str(tmp_path / "rewards.py")!r} + ":reward")
def ask(text):
    answer = Completion("p", (5,), (-1.0,), text, StopReason.STOP_TOKEN)
    return reward([{ASKED!r}], [answer])[0]
print(int(ask("pid").value), flush=True)
ask("native")
"""
    function().close()
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as caller:
        pid = int(caller.stdout.readline())
        assert lives(pid)
        caller.send_signal(signal.SIGKILL)
    assert eventually(lambda: not lives(pid))


def test_missing_file_or_function_is_named(tmp_path):
    file = tmp_path / "rewards.py"
    file.write_text("def length(prompt, completion):\n    return 1\n")
    with pytest.raises(ConfigError, match=r"no function 'lenght': it has \['length'\]"):
        FunctionProcess(f"{file}:lenght")
    for path in (f"{tmp_path}/none.py:length", "length", f"{file}"):
        with pytest.raises(ConfigError, match=r"expected an existing FILE\.py:NAME"):
            FunctionProcess(path)


def test_file_that_does_not_run_is_an_error_in_words(tmp_path):
    file = tmp_path / "rewards.py"
    file.write_text("import nothing_of_the_kind\n")
    with pytest.raises(ConfigError, match="raised ModuleNotFoundError"):
        FunctionProcess(f"{file}:length")
    file.write_text("import os\nos._exit(9)\n")
    with pytest.raises(ConfigError, match="its process ended with exit code 9 while it was loaded"):
        FunctionProcess(f"{file}:length")
