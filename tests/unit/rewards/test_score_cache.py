"""Scores that outlive the process that got them."""

import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import RewardError
from tutelage.rewards import ScoreCache, score_cache


@settings(max_examples=10)
@given(st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_scores_come_back_exactly(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp("cache") / "scores.sqlite"
    cache = ScoreCache(path)
    cache.keep(scores)
    cache.close()
    cache = ScoreCache(path)
    assert cache.find([*scores, "never seen" * 3]) == scores
    cache.close()


def test_more_keys_are_found_than_one_statement_takes(tmp_path):
    cache = ScoreCache(tmp_path / "folder" / "scores.sqlite")
    scores = {str(i): float(i) for i in range(1200)}
    cache.keep(scores)
    assert cache.find(scores) == scores
    cache.close()


def test_file_that_is_no_cache_is_named(tmp_path):
    path = tmp_path / "scores.sqlite"
    path.write_text("a letter to a friend, long enough for a header" * 10)
    with pytest.raises(RewardError, match=r"scores\.sqlite cannot be used: .*Delete it"):
        ScoreCache(path)


def test_failed_write_is_told_to_the_caller(tmp_path):
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.close()
    with pytest.raises(sqlite3.Error):
        cache.keep({"a": 1.0})


def test_kill_in_the_middle_of_writing_leaves_whole_batches(tmp_path):
    path = tmp_path / "scores.sqlite"
    # The module alone: its package would import torch.
    script = f"""
import importlib.util, pathlib
spec = importlib.util.spec_from_file_location("alone", {score_cache.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
cache = module.ScoreCache(pathlib.Path({str(path)!r}))
batch = 0
while True:
    cache.keep({{f"{{batch}}/{{i}}": float(batch) for i in range(50)}})
    batch += 1
    print(batch, flush=True)
"""
    written = 0
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as writer:
            for _ in range(5):
                written = max(written, int(writer.stdout.readline()))
            os.kill(writer.pid, signal.SIGKILL)
        cache = ScoreCache(path)
        sizes = [
            len(cache.find(f"{batch}/{i}" for i in range(50))) for batch in range(written + 100)
        ]
        cache.close()
        assert set(sizes) <= {0, 50}
        assert sizes[:written] == [50] * written
