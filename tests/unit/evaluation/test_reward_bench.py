"""Benchmark files, and RewardBench's sections by hand."""

import json

import pytest

from tutelage.data.judged_pairs import load_judged_pairs
from tutelage.errors import DataError
from tutelage.evaluation.reward_bench import section_scores
from tutelage.evaluation.scored_pairs import ScoredPairs


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def bench(subset: str, number: int) -> dict:
    return {"id": number, "prompt": "q", "chosen": "x", "rejected": "y", "subset": subset}


def test_rows_of_a_benchmark_become_preferences(tmp_path):
    path = write(tmp_path / "bench.jsonl", [bench("donotanswer", 1), bench("hep-go", 1)])
    first, second = load_judged_pairs(path)
    assert (first.comparison.a, first.p_a) == ("x", 1.0)
    assert first.comparison.prompt.category == "donotanswer"
    assert first.comparison.prompt.id != second.comparison.prompt.id
    assert len(load_judged_pairs(path, limit=1)) == 1


def test_our_own_rows_are_read_as_before(tmp_path):
    row = {"id": "1", "prompt": [{"role": "user", "content": "q"}], "chosen": "x", "rejected": "y"}
    (preference,) = load_judged_pairs(write(tmp_path / "own.jsonl", [row]))
    assert preference.comparison.prompt.id == "1"


def test_a_broken_row_is_named(tmp_path):
    rows = [bench("hep-go", 1), {"prompt": "q", "chosen": "x", "subset": "s"}]
    with pytest.raises(DataError, match=r":2: rejected is None"):
        load_judged_pairs(write(tmp_path / "broken.jsonl", rows))


def test_sections_weigh_subsets_by_their_published_size(tmp_path):
    """Chat Hard: 37 of mt-bench-hard all right and 100 of llmbar-natural half right."""
    subsets = ["mt-bench-hard", "llmbar-natural", "llmbar-natural", "unknown"]
    rows = [bench(subset, i) for i, subset in enumerate(subsets)]
    pairs = ScoredPairs.of(
        load_judged_pairs(write(tmp_path / "b.jsonl", rows)), [1.0, 1.0, -1.0, -1.0]
    )
    assert section_scores(pairs) == {"Chat Hard": pytest.approx((37 + 50) / 137)}


def test_the_whole_is_the_mean_of_all_four_sections(tmp_path):
    subsets = ["alpacaeval-easy", "mt-bench-hard", "donotanswer", "hep-go"]
    rows = [bench(subset, i) for i, subset in enumerate(subsets)]
    pairs = ScoredPairs.of(
        load_judged_pairs(write(tmp_path / "b.jsonl", rows)), [1.0, 1.0, -1.0, 1.0]
    )
    assert section_scores(pairs)["RewardBench"] == 0.75
