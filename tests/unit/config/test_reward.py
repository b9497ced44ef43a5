"""Rewards in a recipe: what is accepted and what is refused."""

import pytest
from pydantic import ValidationError

from tutelage.config import RewardConfig

SERVICE = {"url": "http://127.0.0.1:8600"}


@pytest.mark.parametrize(
    "given",
    [
        {"repetition": {"size": 2}},
        {"format": {"json_value": True}},
        {"remote": {"facts": SERVICE}},
        {"deadlines": {"item_seconds": 1.0}},
        {"model": "rm", "shape": "par", "reference_answers": "samples"},
    ],
)
def test_what_is_set_is_written_and_read_again(given):
    config = RewardConfig.model_validate(given)
    assert given.keys() <= config.to_json().keys()
    assert RewardConfig.model_validate(config.to_json()) == config


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"format": {}}, "either a pattern or json_value"),
        ({"format": {"pattern": "a", "json_value": True}}, "either a pattern or json_value"),
        ({"format": {"pattern": "("}}, "'\\(' is no regular expression"),
        ({"model": "rm", "shape": "par"}, "shape: par needs answers of the reference"),
        ({"length": {"threshold": "per_prompt"}}, "per_prompt needs answers of the reference"),
        ({"shape": "par", "reference_answers": "s"}, "the reward model's score: set model"),
        ({"model": "rm", "reference_answers": "s"}, "nothing reads it"),
        ({"deadlines": {"item_seconds": 0}}, "greater than 0"),
        ({"repetition": {"size": 0}}, "greater than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(given, complaint):
    with pytest.raises(ValidationError, match=complaint):
        RewardConfig.model_validate(given)


def test_stages_that_a_reward_reads_are_its_references():
    config = RewardConfig(model="rm", shape="par", reference_answers="samples")
    assert list(config.references()) == ["rm", "samples"]
