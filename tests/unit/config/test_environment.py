"""Conversations in a recipe: what is refused because a limit is that of one turn."""

from typing import Any

import pytest
from pydantic import ValidationError

from tutelage.config import TrainStage

PLAIN = {"model": "lm", "prompts": "prompts.jsonl", "reward": {"model": "rm"}}
TALK = {"name": "helpdesk"}


def stage(**changes: Any) -> TrainStage:
    return TrainStage.model_validate({**PLAIN, **changes})


def test_a_stage_without_conversations_is_written_as_before():
    assert "environment" not in stage().model_dump()
    assert stage(environment=TALK).model_dump()["environment"]["max_turns"] == 4


def test_a_conversation_must_have_room_for_more_than_one_answer():
    with pytest.raises(ValidationError, match="no conversation would have a second turn"):
        stage(environment={**TALK, "max_tokens": 96})
    assert stage(environment={**TALK, "max_tokens": 300})


@pytest.mark.parametrize(
    "changes",
    [
        {"ppo": {"truncation": {"mode": "soft", "buffer": 8}}},
        {
            "algorithm": "grpo",
            "grpo": {"aggregation": "fixed_length", "sampling": {"samples_per_prompt": 4}},
        },
    ],
)
def test_what_measures_a_completion_by_the_limit_of_a_turn_is_refused(changes):
    assert stage(**changes)
    with pytest.raises(ValidationError, match="limit of one turn of several"):
        stage(environment=TALK, **changes)
