"""The rewards themselves: from text, from length, from a user's function."""

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tutelage.models import RewardModel
from tutelage.records import Completion, Message, Prompt, ScoreStatus, StopReason
from tutelage.rewards import FunctionReward, LengthPenalty, ModelReward

ASKED = Prompt("p", (Message("user", "how are you?"),))


def completion(text: str, tokens: int = 3) -> Completion:
    # Ids of the policy's own vocabulary, far outside that of the reward model.
    return Completion("p", (50_000,) * tokens, (-1.0,) * tokens, text, StopReason.LENGTH)


@pytest.fixture
def reward_model(tiny_tokenizer) -> RewardModel:
    config = AutoConfig.for_model(
        "llama",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        num_labels=1,
        initializer_range=0.5,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    return RewardModel(model, tiny_tokenizer, max_length=64)


def test_reward_model_reads_text_and_never_the_policys_ids(reward_model):
    answers = ["fine.", "not so well.", ""]
    scores = ModelReward(reward_model)([ASKED] * 3, [completion(text) for text in answers])
    expected = reward_model.score([ASKED] * 3, answers)
    assert [score.value for score in scores] == pytest.approx(expected, abs=1e-6)
    assert len({round(score.value, 4) for score in scores}) == 3


def test_answer_too_long_for_the_reward_model_is_unscorable_not_cut(reward_model):
    scores = ModelReward(reward_model)([ASKED] * 2, [completion("x" * 600), completion("fine.")])
    assert scores[0].status is ScoreStatus.UNSCORABLE
    assert "exceed the reward model's 64 tokens" in scores[0].notes
    assert scores[1].ok


def test_scores_are_clipped_on_both_sides(reward_model):
    texts = ["fine.", "not so well.", "so so", "go away", "ok"]
    raw = [s.value for s in ModelReward(reward_model)([ASKED] * 5, list(map(completion, texts)))]
    bound = sorted(map(abs, raw))[2]
    clipped = ModelReward(reward_model, clip=bound)([ASKED] * 5, list(map(completion, texts)))
    assert [s.value for s in clipped] == pytest.approx(np.clip(raw, -bound, bound).tolist())
    assert max(map(abs, raw)) > bound


def test_reward_model_that_gives_no_number_fails(reward_model):
    with torch.no_grad():
        reward_model.model.score.weight.fill_(math.nan)
    score = ModelReward(reward_model)([ASKED], [completion("fine.")])[0]
    assert score.status is ScoreStatus.NOT_FINITE
    assert math.isnan(score.value)


def test_length_costs_beyond_the_threshold():
    penalty = LengthPenalty(0.1, 4)
    scores = penalty([ASKED] * 4, [completion("x", tokens) for tokens in (1, 4, 5, 9)])
    assert [score.value for score in scores] == pytest.approx([0, 0, -0.1, -0.5])


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (lambda prompt, c: len(c.text), 5.0),
        (lambda prompt, c: np.float32(0.5), 0.5),
        (lambda prompt, c: c.text == "fine.", 1.0),
    ],
)
def test_numbers_of_a_users_function_are_scores(function: Callable, value):
    score = FunctionReward(function, "mine")([ASKED], [completion("fine.")])[0]
    assert (score.ok, score.value) == (True, value)


def raises(prompt: Prompt, completion: Completion) -> float:
    raise KeyError("missing")


@pytest.mark.parametrize(
    ("function", "status", "notes"),
    [
        (raises, ScoreStatus.ERROR, "mine raised KeyError('missing')"),
        (lambda prompt, c: None, ScoreStatus.UNSCORABLE, "mine returned None"),
        (lambda prompt, c: math.nan, ScoreStatus.NOT_FINITE, "mine returned nan, expected"),
        (lambda prompt, c: "good", ScoreStatus.ERROR, "mine returned 'good', expected a finite"),
        (lambda prompt, c: 10**400, ScoreStatus.ERROR, "mine raised OverflowError"),
        (lambda prompt, c: sys.exit(1), ScoreStatus.ERROR, "mine raised SystemExit(1)"),
    ],
)
def test_failure_of_a_users_function_is_never_a_zero(function: Callable, status, notes):
    score = FunctionReward(function, "mine")([ASKED], [completion("fine.")])[0]
    assert score.status is status
    assert score.notes.startswith(notes)
    assert math.isnan(score.value)
