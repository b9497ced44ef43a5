"""Reward-model training: the loss by hand, both answers at once, nothing lost."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tutelage.config import BatchConfig, OptimizerConfig
from tutelage.models import RewardModel
from tutelage.records import Comparison, Message, Preference, Prompt
from tutelage.trainers.learner import Learner
from tutelage.trainers.reward import EncodedPair, PairBatch, encode_pairs, margins, train_reward

PAIRS = [
    EncodedPair((5, 6, 7), (5, 8), 1.0),
    EncodedPair((9, 10), (9, 11, 12, 13, 14), 0.0),
    EncodedPair((15, 16, 17, 18), (15, 19, 20), 0.7),
]


@pytest.fixture
def build(tiny_tokenizer) -> Callable[[], RewardModel]:
    """A fresh reward model, always with the same weights."""

    def make() -> RewardModel:
        config = AutoConfig.for_model(
            "llama",
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            pad_token_id=0,
            num_labels=1,
            initializer_range=0.2,
        )
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        return RewardModel(model, tiny_tokenizer, max_length=32)

    return make


@pytest.fixture
def gradient_of(recording):
    """`gradient_of(model, pairs)`: metrics and gradient of one step."""

    def step(model: RewardModel, pairs: Sequence[EncodedPair], *, tokens: int = 10**6, **options):
        optimizer = recording(model, OptimizerConfig(max_gradient_norm=1e9))
        batch = BatchConfig(microbatch_tokens=tokens)
        learner = Learner({"reward_model": optimizer}, batch, torch.Generator())
        (taken,) = train_reward(model, learner, [pairs], **options)
        return taken.metrics, optimizer.gradients[0]

    return step


def scores(model: RewardModel, rows) -> list[float]:
    with torch.no_grad():
        return [
            model(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool)).item()
            for row in rows
        ]


def test_loss_is_bradley_terry_with_soft_labels_and_centring(build, gradient_of):
    model = build()
    a, b = scores(model, [p.a for p in PAIRS]), scores(model, [p.b for p in PAIRS])
    expected = 0.0
    for x, y, pair in zip(a, b, PAIRS, strict=True):
        first = 1 / (1 + math.exp(y - x))
        expected -= pair.p_a * math.log(first) + (1 - pair.p_a) * math.log(1 - first)
        expected += 0.05 * (x + y) ** 2
    metrics, _ = gradient_of(model, PAIRS, centring=0.05)
    assert metrics["loss"] == pytest.approx(expected / 3, rel=1e-5)
    right = [(x > y) == (pair.p_a > 0.5) for x, y, pair in zip(a, b, PAIRS, strict=True)]
    assert metrics["accuracy"] == pytest.approx(sum(right) / 3)


def test_swapping_the_answers_and_the_label_changes_nothing(build, gradient_of):
    swapped = [EncodedPair(p.b, p.a, 1 - p.p_a) for p in PAIRS]
    metrics, gradient = gradient_of(build(), PAIRS)
    other, same = gradient_of(build(), swapped)
    assert other == pytest.approx(metrics, rel=1e-5)
    torch.testing.assert_close(same, gradient, rtol=1e-4, atol=1e-6)


def test_swapping_only_the_answers_negates_the_gradient_at_a_tie(build, gradient_of):
    """With a zero head all margins are 0, and so the weight sigma(-margin) of each pair."""

    def tied() -> RewardModel:
        model = build()
        torch.nn.init.zeros_(model.model.score.weight)
        return model

    pairs = [EncodedPair(p.a, p.b, 1.0) for p in PAIRS]
    swapped = [EncodedPair(p.b, p.a, 1.0) for p in PAIRS]
    metrics, gradient = gradient_of(tied(), pairs, centring=0.0)
    _, negated = gradient_of(tied(), swapped, centring=0.0)
    assert metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["accuracy"] == 0.5
    assert gradient.norm() > 0.1
    torch.testing.assert_close(negated, -gradient, rtol=1e-4, atol=1e-6)


def test_gradients_do_not_depend_on_micro_batches(build, gradient_of):
    metrics, whole = gradient_of(build(), PAIRS)
    for tokens in (1, 12):
        other, cut = gradient_of(build(), PAIRS, tokens=tokens)
        assert other == pytest.approx(metrics, rel=1e-5)
        assert (cut - whole).norm() <= 2e-6 * whole.norm()


def test_margins_stand_in_the_order_of_the_pairs(build):
    model = build()
    a, b = scores(model, [p.a for p in PAIRS]), scores(model, [p.b for p in PAIRS])
    expected = [x - y for x, y in zip(a, b, strict=True)]
    for rows_at_once in (1, 2, 64):
        assert margins(model, PAIRS, rows_at_once=rows_at_once) == pytest.approx(expected, abs=1e-5)


def test_pairs_that_do_not_fit_are_left_out_whole_and_counted(build):
    model = build()
    prompt = Prompt("p", (Message("user", "hi"),))

    def preference(a: str, b: str) -> Preference:
        return Preference(Comparison(prompt, a, b), 0.8, "someone")

    pairs, too_long = encode_pairs(
        model, [preference("yes", "no"), preference("x" * 40, "no"), preference("a", "y" * 40)]
    )
    assert too_long == 2
    assert pairs == [
        EncodedPair(model.encode(prompt, "yes"), model.encode(prompt, "no"), 0.8, prompt.id)
    ]


def test_pairs_are_measured_by_their_longer_answer():
    batch = PairBatch(PAIRS)
    assert batch.row_lengths == [6, 10, 8]
    assert batch.denominator == 3
    assert batch.select([2, 0]).pairs == [PAIRS[2], PAIRS[0]]
