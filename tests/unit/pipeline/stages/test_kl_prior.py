"""The KL budget by best-of-n: against every subset of a few samples, and what it refuses."""

import json
import math
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest

from tutelage.errors import ConfigError
from tutelage.pipeline.stages.kl_prior import prior_budget
from tutelage.records import Completion, Prompt, Score


def first(prompts: list[Prompt], completions: list[Completion]) -> list[Score]:
    return [Score(float(completion.text.split()[0])) for completion in completions]


def second(prompts: list[Prompt], completions: list[Completion]) -> list[Score]:
    return [Score(float(completion.text.split()[1])) for completion in completions]


def samples(path: Path, gains: list[float]) -> Path:
    """One prompt; the reward ranks the answers, the signal is worth what is given."""
    completions = [
        {"tokens": [1], "logprobs": [-1.0], "text": f"{rank} {gain}", "stop": "stop_token"}
        for rank, gain in enumerate(gains)
    ]
    row = {
        "id": "p",
        "prompt": [{"role": "user", "content": "which?"}],
        "source": "",
        "category": "",
        "completions": completions,
    }
    path.write_text(json.dumps(row) + "\n")
    return path


def test_budget_is_four_times_the_kl_of_the_peak(tmp_path):
    """Rising up to the third best, and falling from there."""
    gains = [0.0, 0.1, 0.5, 0.7, 1.0, 1.2, 1.0, 0.6]
    worth = {
        n: fmean(gains[max(drawn)] for drawn in combinations(range(8), n)) for n in (1, 2, 4, 8)
    }
    d = {n: math.sqrt(math.log(n) - (n - 1) / n) for n in (2, 4, 8)}
    gain = {n: worth[n] - worth[1] for n in d}
    # Normal equations of gain = alpha d - beta d^2.
    s2, s3, s4 = (sum(d[n] ** k for n in d) for k in (2, 3, 4))
    t1, t2 = (sum(gain[n] * d[n] ** k for n in d) for k in (1, 2))
    determinant = s3 * s3 - s2 * s4
    alpha = (s3 * t2 - s4 * t1) / determinant
    beta = (s2 * t2 - s3 * t1) / determinant
    peak = alpha / (2 * beta)
    assert 0.3 < peak < 2.0
    budget = prior_budget(samples(tmp_path / "s.jsonl", gains), first, second)
    assert budget == pytest.approx(4 * peak**2)


def test_signal_that_falls_from_the_start_is_refused(tmp_path):
    path = samples(tmp_path / "s.jsonl", [-float(rank) for rank in range(8)])
    with pytest.raises(ConfigError, match="not fit to train on"):
        prior_budget(path, first, second)


def test_few_answers_are_refused(tmp_path):
    path = samples(tmp_path / "s.jsonl", [0.0, 1.0, 2.0, 3.0])
    with pytest.raises(ConfigError, match="has 4 answers to a prompt"):
        prior_budget(path, first, second)
