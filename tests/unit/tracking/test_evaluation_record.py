import pytest

from tutelage.tracking.evaluation_record import EvaluationRecord
from tutelage.tracking.example_run import example_evaluation


@pytest.fixture
def record():
    return EvaluationRecord.from_json(example_evaluation())


def small(**extra):
    return {
        "models": [
            {
                "name": "sft",
                "measures": {"gold": {"mean": 0.5}, "kl": None, "safe": {"mean": 0.0, "n": 0}},
            },
            {"name": "ppo", "label": "PPO", "measures": {"gold": {"mean": 1, "low": 0, "high": 2}}},
        ],
        "measures": [{"key": "gold"}, {"key": "win_rate", "role": "held_out"}],
        **extra,
    }


def difference(low, high, measure="gold"):
    return {
        "model": "ppo",
        "baseline": "sft",
        "measure": measure,
        "mean": (low + high) / 2,
        "low": low,
        "high": high,
    }


def test_what_is_left_out_has_a_sensible_meaning():
    record = EvaluationRecord.from_json(small())
    sft, ppo = record.models
    assert (sft.label, sft.stage, ppo.label, ppo.stage) == ("SFT", "sft", "PPO", "ppo")
    assert set(sft.measures) == {"gold"}
    estimate = sft.measures["gold"]
    assert (estimate.mean, estimate.low, estimate.high, estimate.n) == (0.5, 0.5, 0.5, None)
    gold, win_rate = record.measures
    assert (gold.label, gold.unit, gold.better, gold.role) == ("gold", "", None, "gold")
    assert (win_rate.label, win_rate.role) == ("win rate", "held_out")
    assert record.baseline is sft


def test_measures_are_found_by_the_part_they_play(record):
    assert record.role("gold").key == "gold"
    assert record.role("absent") is None
    assert EvaluationRecord.from_json(small()).role("held_out").key == "win_rate"


@pytest.mark.parametrize(
    ("better", "low", "high", "change"),
    [
        ("higher", 0.1, 0.3, "better"),
        ("higher", -0.3, -0.1, "worse"),
        ("higher", -0.1, 0.3, None),
        ("higher", 0.0, 0.3, None),
        ("lower", 0.1, 0.3, "worse"),
        ("lower", -0.3, -0.1, "better"),
        (None, 0.1, 0.3, None),
    ],
)
def test_a_change_counts_only_when_its_interval_excludes_zero(better, low, high, change):
    row = small(differences=[difference(low, high)])
    row["measures"][0]["better"] = better
    record = EvaluationRecord.from_json(row)
    assert record.change(record.models[1], record.measures[0]) == change


def test_without_a_stated_difference_nothing_changed():
    record = EvaluationRecord.from_json(small(differences=[difference(1, 2, "win_rate")]))
    assert record.change(record.models[1], record.measures[0]) is None


def test_the_baseline_of_a_difference_can_be_chosen(record):
    assert record.difference("guarded", "gold").baseline == "before"
    assert record.difference("guarded", "gold", "unguarded").mean == pytest.approx(2.23)
    assert record.difference("before", "gold") is None


def test_a_difference_can_be_asked_for_in_either_direction(record):
    stated = record.difference("guarded", "gold", "unguarded")
    assert record.between("guarded", "unguarded", "gold") == stated
    found = record.between("unguarded", "guarded", "gold")
    assert (found.model, found.baseline, found.measure) == ("unguarded", "guarded", "gold")
    assert (found.mean, found.low, found.high) == (-stated.mean, -stated.high, -stated.low)
    assert record.between("guarded", "nobody", "gold") is None


@pytest.mark.parametrize(
    ("name", "label"),
    [("before", "Before"), ("ppo_guarded", "PPO guarded"), ("run sft", "Run SFT"), ("", "")],
)
def test_a_model_name_is_shown_as_a_heading(name, label):
    row = small()
    row["models"][0]["name"] = name
    assert EvaluationRecord.from_json(row).baseline.label == label


@pytest.mark.parametrize(
    ("unit", "shown", "scale"),
    [("share", "%", 100), ("sigma", "\u03c3", 1), ("tokens", "tokens", 1), (None, "", 1)],
)
def test_a_share_is_shown_in_per_cent(unit, shown, scale):
    row = small()
    row["measures"][0]["unit"] = unit
    measure = EvaluationRecord.from_json(row).measures[0]
    assert (measure.unit, measure.scale) == (shown, scale)


@pytest.mark.parametrize("damage", ["models", "measures"])
def test_a_file_of_another_form_is_not_read(damage):
    row = example_evaluation()
    del row[damage]
    with pytest.raises(KeyError):
        EvaluationRecord.from_json(row)
