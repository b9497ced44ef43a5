import json
import logging
import math

import pytest

from tutelage.records import Completion, Message, Prompt, Score, ScoreStatus, StopReason
from tutelage.tracking.metrics import MetricAccumulator, MetricWriter, SampleWriter
from tutelage.tracking.sinks import JsonLinesSink, NullSink


class BrokenSink:
    """A tracker that is down."""

    def __init__(self, *, failures):
        self.left = failures
        self.written = []

    def write(self, step, seconds, metrics):
        if self.left > 0:
            self.left -= 1
            raise ConnectionError("tracker is down")
        self.written.append(step)

    def close(self):
        raise ConnectionError("tracker is down")


def test_means_weigh_each_part_by_what_it_was_taken_over():
    accumulator = MetricAccumulator()
    accumulator.add({"sft/loss": 1.0}, weight=30)
    accumulator.add({"sft/loss": 4.0}, weight=10)
    assert accumulator.result() == {"sft/loss": pytest.approx(1.75, abs=1e-12)}


def test_every_reduction_does_what_its_name_says():
    accumulator = MetricAccumulator({"a/sum": "sum", "a/max": "max", "a/min": "min"})
    for value in (2.0, -1.0, 5.0):
        accumulator.add({"a/sum": value, "a/max": value, "a/min": value, "a/mean": value}, weight=7)
    assert accumulator.result() == {"a/sum": 6.0, "a/max": 5.0, "a/min": -1.0, "a/mean": 2.0}


def test_a_key_may_be_missing_from_some_parts():
    accumulator = MetricAccumulator()
    accumulator.add({"a/x": 1.0, "a/y": 3.0})
    accumulator.add({"a/x": 2.0})
    assert accumulator.result() == {"a/x": 1.5, "a/y": 3.0}


@pytest.mark.parametrize("reduction", ["mean", "sum", "max", "min"])
@pytest.mark.parametrize("order", [(1.0, math.nan), (math.nan, 1.0)])
def test_a_nan_is_never_lost(reduction, order):
    accumulator = MetricAccumulator({"a/x": reduction})
    for value in order:
        accumulator.add({"a/x": value})
    assert math.isnan(accumulator.result()["a/x"])


def test_a_part_without_weight_counts_for_nothing_even_when_it_is_nan():
    accumulator = MetricAccumulator()
    accumulator.add({"a/x": math.nan}, weight=0)
    assert accumulator.result() == {}
    accumulator.add({"a/x": 2.0}, weight=3)
    assert accumulator.result() == {"a/x": 2.0}


def test_a_writer_hands_every_step_to_every_sink(tmp_path):
    with MetricWriter([JsonLinesSink(tmp_path / "a"), JsonLinesSink(tmp_path / "b")]) as writer:
        writer.log(1, {"a/x": 1})
        writer.log(2, {"a/x": 2})
    for name in "ab":
        lines = (tmp_path / name).read_text().splitlines()
        assert [json.loads(line)["metrics"] for line in lines] == [{"a/x": 1.0}, {"a/x": 2.0}]


def test_the_usual_writer_writes_metrics_jsonl(tmp_path):
    with MetricWriter.open(tmp_path) as writer:
        writer.log(7, {"a/x": 0.25})
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row["step"] == 7
    assert row["seconds"] >= 0


def test_a_tracker_that_is_down_never_stops_training_and_is_reported_once(caplog):
    sink = BrokenSink(failures=2)
    writer = MetricWriter([sink, NullSink()])
    with caplog.at_level(logging.WARNING):
        for step in (1, 2, 3):
            writer.log(step, {"a/x": 1.0})
        writer.close()
    assert sink.written == [3]
    assert writer.failures == 3
    assert [record.getMessage() for record in caplog.records] == [
        "BrokenSink failed, training goes on without it: tracker is down"
    ]


def test_a_full_log_disk_never_stops_training(tmp_path, caplog):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with MetricWriter.open(tmp_path) as writer:
        writer.log(1, {"a/x": 1.0})
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))
        try:
            for step in range(2, 6):
                writer.log(step, {"a/x": 1.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.log(6, {"a/x": 1.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 6]
    assert writer.failures == 4


def test_a_metric_that_is_no_number_is_our_own_fault_and_raises():
    with pytest.raises(ValueError, match="could not convert"):
        MetricWriter([]).log(1, {"a/x": "many"})


def sample(name, score):
    prompt = Prompt(name, (Message("system", "Be brief."), Message("user", f"Hi {name}")))
    completion = Completion(name, (4, 5), (-0.5, -0.25), "<b>\n", StopReason.LENGTH)
    return prompt, completion, score


def test_samples_keep_prompt_completion_score_parts_and_kl(tmp_path):
    scores = [Score(1.5, {"rm": 2.0, "length": -0.5}), Score.failed(ScoreStatus.TIMEOUT, "slow")]
    prompts, completions, scores = zip(*map(sample, ("p", "q"), scores), strict=True)
    with SampleWriter(tmp_path / "samples.jsonl") as writer:
        writer.log(4, prompts, completions, scores, kl=[0.5, math.inf])
    first, second = map(json.loads, (tmp_path / "samples.jsonl").read_text().splitlines())
    assert first == {
        "step": 4,
        "prompt_id": "p",
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi p"},
        ],
        "completion": "<b>\n",
        "tokens": 2,
        "stop": "length",
        "status": "ok",
        "score": 1.5,
        "parts": {"rm": 2.0, "length": -0.5},
        "kl": 0.5,
        "notes": "",
    }
    assert (second["status"], second["score"], second["kl"]) == ("timeout", None, None)
    assert second["notes"] == "slow"


def test_only_the_first_samples_of_a_step_are_kept(tmp_path):
    rows = [sample(str(i), Score(float(i))) for i in range(5)]
    prompts, completions, scores = zip(*rows, strict=True)
    with SampleWriter(tmp_path / "s", per_step=2) as writer:
        writer.log(1, prompts, completions, scores)
        writer.log(2, prompts, completions, scores)
    lines = [json.loads(line) for line in (tmp_path / "s").read_text().splitlines()]
    assert [(row["step"], row["score"]) for row in lines] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert {row["kl"] for row in lines} == {None}
