"""Several runs of a recipe: means over seeds, Student's intervals, and what is refused."""

import json
import math

import pytest

from tutelage.errors import ConfigError
from tutelage.tracking.atomic import write_json_atomically
from tutelage.tracking.comparison import Comparison, student_interval
from tutelage.tracking.reader import read_run
from tutelage.tracking.stage import StageFolder, StageInfo
from tutelage.tracking.summary import write_summary

MEASURES = [
    {"key": "gold", "label": "Gold score", "better": "higher"},
    {"key": "length", "label": "Length", "unit": "tokens"},
    {"key": "novelty", "label": "Novelty"},
]


def estimate(mean: float, half: float = 0.1) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": 50}


@pytest.fixture
def run(tmp_path):
    """`run(seed, gold, gain)`: a finished run of a baseline and a trained model."""

    def make(seed: int, gold: float, gain: float, *, name: str = "", config=None, extra=None):
        folder = tmp_path / (name or f"seed{seed}")
        settings = config or {"kind": "train", "ppo": {"clip": 0.2}}
        info = StageInfo("train", settings, str(seed), {"sft": ""}, seed)
        with StageFolder.create(folder, "ppo", info) as stage:
            stage.metrics["response_tokens"] = 1000.0 + 100 * seed
        info = StageInfo("evaluate", {"kind": "evaluate"}, str(seed), {"ppo": ""}, seed)
        measures = {"gold": estimate(gold), "length": estimate(20, 1)}
        after = {"gold": estimate(gold + gain), "length": estimate(30, 1), **(extra or {})}
        with StageFolder.create(folder, "evaluation", info) as stage:
            evaluation = {
                "measures": MEASURES,
                "models": [
                    {"name": "before", "stage": "sft", "measures": measures},
                    {"name": "ppo", "stage": "ppo", "measures": after},
                ],
                "differences": [
                    {"model": "ppo", "baseline": "before", "measure": "gold", **estimate(gain)}
                ],
            }
            write_json_atomically(stage.path / "evaluation.json", evaluation)
        write_summary(folder, name="demo", seed=seed, seconds=1)
        return read_run(folder)

    return make


@pytest.mark.parametrize(
    ("values", "half"),
    [
        # t of 1 degree is 12.706: of 0 and 2 the standard deviation is sqrt 2, over sqrt 2 values.
        ([0.0, 2.0], 12.706),
        # The standard deviation of 1, 2, 3 is 1.
        ([1.0, 2.0, 3.0], 4.303 / math.sqrt(3)),
        ([5.0], 0.0),
        ([7.0, 7.0, 7.0, 7.0], 0.0),
    ],
)
def test_the_interval_is_students(values, half):
    found = student_interval(values)
    assert found.mean == pytest.approx(sum(values) / len(values))
    assert found.high - found.mean == pytest.approx(half, abs=1e-9)
    assert found.mean - found.low == pytest.approx(half, abs=1e-9)


def test_intervals_cover_95_in_100_by_students_density():
    """Of n values whose mean has the standard error 1, half the interval is the quantile of t."""
    for count in range(2, 22):
        values = [-1.0, *[1.0] * (count - 1)]
        error = 2 / count  # standard deviation 2 / sqrt n, over sqrt n values
        found = student_interval(values)
        quantile, degrees = (found.high - found.mean) / error, count - 1
        ratio = math.gamma((degrees + 1) / 2) / math.gamma(degrees / 2)
        width = quantile / 100_000
        steps = ((i + 0.5) * width for i in range(100_000))
        area = sum((1 + t * t / degrees) ** (-(degrees + 1) / 2) for t in steps)
        covered = 2 * area * width * ratio / math.sqrt(math.pi * degrees)
        # The quantiles are written with three decimals.
        assert covered == pytest.approx(0.95, abs=1e-4)


def test_means_and_differences_are_over_runs(run):
    runs = [run(0, 0.1, 0.4), run(1, 0.2, 0.5), run(2, 0.3, 0.6)]
    record = Comparison.of(runs).record
    before, ppo = record.models
    assert before.measures["gold"].mean == pytest.approx(0.2)
    assert ppo.measures["gold"].mean == pytest.approx(0.7)
    assert ppo.measures["gold"].n == 3
    assert ppo.measures["response_tokens"].mean == 1100
    (gain,) = record.differences
    half = 4.303 * 0.1 / math.sqrt(3)
    assert (gain.mean, gain.low) == (pytest.approx(0.5), pytest.approx(0.5 - half))
    assert record.change(ppo, record.role("gold")) == "better"


def test_a_gain_that_differs_much_between_seeds_is_not_called_one(run):
    record = Comparison.of([run(0, 0.1, 0.1), run(1, 0.1, 0.9)]).record
    assert record.change(record.models[1], record.role("gold")) is None


def test_one_run_keeps_its_intervals(run):
    alone = run(0, 0.1, 0.4)
    comparison = Comparison.of([alone])
    assert comparison.record == alone.evaluation
    assert "over prompts" in comparison.overview.to_markdown()


def test_a_measure_that_a_run_lacks_is_left_out(run):
    runs = [run(0, 0.1, 0.4, extra={"novelty": estimate(1)}), run(1, 0.2, 0.5)]
    assert "novelty" not in Comparison.of(runs).record.models[1].measures


def test_files_hold_the_table_and_the_value_of_every_run(run, tmp_path):
    Comparison.of([run(0, 0.11, 0.41), run(1, 0.22, 0.46)]).write(tmp_path / "out")
    page = (tmp_path / "out" / "comparison.md").read_text("utf-8")
    assert page.startswith("# demo: the models compared\n\n| Model | Gold score | Gold score")
    # 0.60 ± 6.353 x 0.16 and 0.435 ± 6.353 x 0.05; the length is the same in both.
    assert "| PPO | 0.6 ±1.0 | +0.4 ±0.3 ✓ | 30.00 | 1,050 ±635 |" in page
    assert "mean over seeds 0, 1" in page
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [each["seed"] for each in found["runs"]] == [0, 1]
    assert found["models"][1]["measures"]["gold"]["runs"] == pytest.approx([0.52, 0.68])
    assert found["differences"][0]["runs"] == [0.41, 0.46]


@pytest.mark.parametrize("count", [0, 1])
def test_there_must_be_an_evaluation(run, tmp_path, count):
    info = StageInfo("sft", {}, "", {}, 0)
    with StageFolder.create(tmp_path / "bare", "sft", info):
        pass
    runs = [read_run(tmp_path / "bare")] * count
    with pytest.raises(ConfigError, match=("no run to compare", "has no finished stage")[count]):
        Comparison.of(runs)


def test_the_same_seed_twice_is_refused(run):
    with pytest.raises(ConfigError, match=r"seed0 and .*again both have seed 0"):
        Comparison.of([run(0, 0.1, 0.4), run(0, 0.1, 0.4, name="again")])


def test_runs_of_different_recipes_are_refused(run):
    other = run(1, 0.1, 0.4, config={"kind": "train", "ppo": {"clip": 0.3}})
    with pytest.raises(ConfigError, match=r"ppo\.ppo\.clip is 0\.2 in the first and 0\.3"):
        Comparison.of([run(0, 0.1, 0.4), other])
