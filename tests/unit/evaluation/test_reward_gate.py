"""Which reward models pass which thresholds, and the reasons given."""

import pytest

from tutelage.evaluation.reward_gate import Thresholds, reasons_against


def estimate(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": 200}


RECORD = {
    "held_out": {
        "accuracy": estimate(0.62),
        "ece": 0.08,
        "length": {"similar": estimate(0.55)},
        "groups": {"source": [{"name": "forum", **estimate(0.48)}, {"name": "x", **estimate(0.7)}]},
        "baselines": {
            "length": {"accuracy": estimate(0.61), "lead": estimate(0.01), "better": False},
            "words": {"accuracy": estimate(0.52), "lead": estimate(0.10), "better": True},
        },
    }
}


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"accuracy": 0.7}, "held-out accuracy is 62.0% [57.0%, 67.0%] of 200 pairs"),
        ({"similar_length_accuracy": 0.6}, "similar length is 55.0%"),
        ({"worst_group_accuracy": 0.5}, "source 'forum' is 48.0%"),
        ({"ece": 0.05}, "calibration error is 0.080, at most 0.05"),
        ({"beats_length": True}, "does not beat the baseline 'length' (61.0%)"),
    ],
)
def test_each_threshold_has_its_reason(asked, reason):
    (found,) = reasons_against(RECORD, Thresholds(**asked))
    assert reason in found


def test_a_model_that_reaches_every_threshold_passes():
    asked = Thresholds(
        accuracy=0.62,
        similar_length_accuracy=0.55,
        worst_group_accuracy=0.4,
        ece=0.08,
        beats_words=True,
    )
    assert reasons_against(RECORD, asked) == []
    assert reasons_against({}, Thresholds()) == []


def test_what_was_never_measured_counts_against_the_model():
    asked = Thresholds(accuracy=0.5, ece=0.1, beats_length=True)
    reasons = reasons_against({"held_out_accuracy": 1.0}, asked)
    assert len(reasons) == 3
    assert all("not measured" in reason for reason in reasons)
