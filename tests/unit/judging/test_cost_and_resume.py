"""What a judge may spend, and that nothing is asked twice, kills included."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from tutelage.errors import ConfigError, JudgeError
from tutelage.judging import Budget, JudgeCache, Rubric, Spent
from tutelage.judging.budget import longest_prompt
from tutelage.judging.fake import Failure, FakeEndpoint, Spoken, prefers
from tutelage.records import Comparison, Message, Prompt

PROMPT = Prompt("p", (Message("user", "how much is it?"),))
COMPARISONS = [Comparison(PROMPT, f"answer {n}", "a longer answer", f"c{n}") for n in range(12)]


def worth(text: str) -> float:
    return float(len(text)) / 10.0


def test_reply_is_kept_over_processes(judge_of, tmp_path):
    with FakeEndpoint(prefers(worth)) as endpoint:
        first = judge_of(endpoint, cache=tmp_path / "judge.db").label(COMPARISONS)
        asked = len(endpoint.bodies)
        judge = judge_of(endpoint, cache=tmp_path / "judge.db")
        assert judge.label(COMPARISONS) == first
        assert len(endpoint.bodies) == asked == 24
        assert judge.asker.counts == {"cached": 24}
        assert judge.asker.spent == Spent()


@pytest.mark.parametrize(
    "change",
    [
        {"rubric": Rubric("long", "The longer answer is better.")},
        {"probabilities": "samples", "samples": 1},
        {"reasons": True},
        {"answer_tokens": 3},
    ],
)
def test_whatever_a_reply_depends_on_is_part_of_its_key(judge_of, tmp_path, change):
    with FakeEndpoint(prefers(worth)) as endpoint:
        judge_of(endpoint, cache=tmp_path / "judge.db").judge(COMPARISONS[:1])
        judge_of(endpoint, cache=tmp_path / "judge.db", **change).judge(COMPARISONS[:1])
        assert len(endpoint.bodies) >= 4


def test_another_endpoint_is_another_judge(judge_of, tmp_path):
    for _ in range(2):
        with FakeEndpoint(prefers(worth)) as endpoint:
            judge_of(endpoint, cache=tmp_path / "judge.db").judge(COMPARISONS[:1])
            assert len(endpoint.bodies) == 2


def test_interrupted_run_asks_with_the_same_key_of_the_fences(judge_of, tmp_path):
    with FakeEndpoint(prefers(worth)) as endpoint:
        judge_of(endpoint, cache=tmp_path / "judge.db").judge(COMPARISONS[:1])
        with sqlite3.connect(tmp_path / "judge.db") as file:
            file.execute("DELETE FROM answers")
        judge_of(endpoint, cache=tmp_path / "judge.db", concurrency=1).judge(COMPARISONS[:1])
        said = [body["messages"] for body in endpoint.bodies]
        assert {json.dumps(each) for each in said[:2]} == {json.dumps(each) for each in said[2:]}
        judge_of(endpoint, cache=tmp_path / "other.db").judge(COMPARISONS[:1])
        assert endpoint.bodies[-1]["messages"] not in said


def test_cache_is_its_owners_alone(judge_of, tmp_path):
    JudgeCache(tmp_path / "judge.db").close()
    assert (tmp_path / "judge.db").stat().st_mode & 0o077 == 0


def test_file_that_is_no_cache_is_named(tmp_path):
    (tmp_path / "judge.db").write_text("something else altogether, of some length" * 40)
    with pytest.raises(JudgeError, match=r"judge\.db cannot be used"):
        JudgeCache(tmp_path / "judge.db")


def test_cache_that_can_no_longer_be_written_ends_the_judging(judge_of, tmp_path):
    with FakeEndpoint(prefers(worth)) as endpoint:
        judge = judge_of(endpoint, cache=tmp_path / "judge.db", concurrency=1)
        judge.judge(COMPARISONS[:1])
        with sqlite3.connect(tmp_path / "judge.db") as file:
            file.execute("DROP TABLE answers")
            file.execute("CREATE TABLE answers (key PRIMARY KEY, reply CHECK (0), created)")
        with pytest.raises(JudgeError, match="cannot be written"):
            judge.judge(COMPARISONS)
        assert len(endpoint.bodies) == 3


def test_spending_never_exceeds_the_budget_in_tokens(judge_of, tmp_path):
    # Whatever the endpoint says a request has cost is no more than was reserved for it.
    def costly(body):
        messages = [Message(**each) for each in body["messages"]]
        spoken = prefers(worth)(body)
        return Spoken(spoken.text, spoken.likeliest, (longest_prompt(messages), 8))

    with FakeEndpoint(costly) as endpoint:
        judge = judge_of(endpoint, budget=Budget(tokens=20_000))
        verdicts = judge.judge(COMPARISONS)
    assert judge.asker.cache.spent.tokens <= 20_000
    assert 0 < len(endpoint.bodies) < 24
    left = [verdict for verdict in verdicts if verdict.failure == "budget"]
    assert left
    assert all(verdict.p_a is None for verdict in left)
    # What is left is less than one more request might cost.
    assert 20_000 - judge.asker.cache.spent.tokens < 3000


def test_what_is_settled_below_the_worst_case_is_there_to_spend(judge_of):
    # 24 requests of 101 tokens; reserved at worst they would be ten times as many.
    with FakeEndpoint(prefers(worth)) as endpoint:
        judge = judge_of(endpoint, budget=Budget(tokens=6000), concurrency=8)
        verdicts = judge.judge(COMPARISONS)
    assert all(verdict.p_a is not None for verdict in verdicts)
    assert judge.asker.cache.spent == Spent(24 * 101, 0.0)


def test_money_is_prices_times_tokens(judge_of):
    budget = Budget(cost=1.0, price_in=2.0, price_out=10.0)
    with FakeEndpoint(prefers(worth)) as endpoint:
        judge = judge_of(endpoint, budget=budget)
        judge.judge(COMPARISONS)
    # 24 (100 * 2 + 1 * 10) / 10^6
    assert judge.asker.spent.cost == pytest.approx(24 * 210e-6)


def test_budget_that_covers_no_request_asks_nothing(judge_of):
    with FakeEndpoint(prefers(worth)) as endpoint:
        judge = judge_of(endpoint, budget=Budget(cost=1e-6, price_in=2.0, price_out=10.0))
        verdicts = judge.judge(COMPARISONS)
        assert {verdict.failure for verdict in verdicts} == {"budget"}
        assert endpoint.bodies == []


def test_larger_budget_goes_on_where_the_smaller_one_ended(judge_of, tmp_path):
    with FakeEndpoint(prefers(worth)) as endpoint:
        cache = tmp_path / "judge.db"
        judge_of(endpoint, cache=cache, budget=Budget(tokens=3000)).judge(COMPARISONS)
        before = len(endpoint.bodies)
        assert 0 < before < 24
        judge = judge_of(endpoint, cache=cache, budget=Budget(tokens=3000))
        assert judge.judge(COMPARISONS)[-1].failure == "budget"
        assert len(endpoint.bodies) == before
        judge = judge_of(endpoint, cache=cache, budget=Budget(tokens=40_000))
        assert all(verdict.p_a is not None for verdict in judge.judge(COMPARISONS))
        assert len(endpoint.bodies) == 24


def test_reply_without_usage_counts_at_its_worst(judge_of):
    def silent(body):
        spoken = prefers(worth)(body)
        return Spoken(spoken.text, spoken.likeliest, None)

    with FakeEndpoint(silent) as endpoint:
        judge = judge_of(endpoint, concurrency=1)
        judge.judge(COMPARISONS[:1])
        bodies = endpoint.bodies
    longest = [longest_prompt([Message(**m) for m in body["messages"]]) for body in bodies]
    assert judge.asker.spent.tokens == sum(longest) + 2 * 8


def test_request_that_may_have_been_billed_counts(judge_of):
    with FakeEndpoint(prefers(worth)) as endpoint:
        endpoint.script = [Failure(500), Failure(seconds=0.8)]
        judge = judge_of(endpoint, concurrency=1, seconds=0.3)
        judge.judge(COMPARISONS[:1])
    # An error is not billed; of what ran out of time nobody knows.
    assert 101 * 2 + 500 < judge.asker.spent.tokens < 101 * 2 + 4000


@pytest.mark.parametrize(
    "wrong", [{"cost": 1.0}, {"tokens": -1}, {"price_in": -1.0}, {"cost": float("nan")}]
)
def test_impossible_budgets_are_refused(wrong):
    with pytest.raises(ConfigError, match="budget"):
        Budget(**wrong)


CHILD = """
import sys
from pathlib import Path
from tutelage.judging import *
from tutelage.records import Comparison, Message, Prompt
url, cache = sys.argv[1:]
prompt = Prompt("p", (Message("user", "how much is it?"),))
rows = [Comparison(prompt, f"answer {n}", "a longer answer", f"c{n}") for n in range(12)]
model, limits = EndpointModel("fake", url, "none"), AskLimits(concurrency=2)
asker = Asker(model, JudgeCache(cache), limits=limits)
with ModelJudge(asker, Rubric("short", "The shorter answer is better.")) as judge:
    for row in judge.label(rows):
        print(row.to_json())
"""


def child(endpoint, cache) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, endpoint.url, str(cache)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.slow
def test_killed_process_goes_on_where_it_was(tmp_path):
    pytest.importorskip("openai")
    cache = tmp_path / "judge.db"
    with FakeEndpoint(prefers(worth)) as endpoint:
        endpoint.seconds = 0.15
        killed = child(endpoint, cache)
        while len(endpoint.bodies) < 9:
            assert killed.poll() is None
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        kept = JudgeCache(cache)
        # Two were under way; the others are kept. What was under way counts at its worst.
        assert len(kept) >= len(endpoint.bodies) - 2
        assert kept.spent.tokens > 101 * len(kept)
        stored = len(kept)
        kept.close()
        before = len(endpoint.bodies)
        resumed = child(endpoint, cache)
        output, _ = resumed.communicate(timeout=120)
        assert resumed.returncode == 0
        assert len(endpoint.bodies) - before == 24 - stored
        again, _ = child(endpoint, cache).communicate(timeout=120)
        assert again == output
        assert len(output.splitlines()) == 12
        assert len(endpoint.bodies) - before == 24 - stored
