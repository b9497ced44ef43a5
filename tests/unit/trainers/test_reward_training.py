"""Reward-model training: the loss by hand, both answers at once, nothing lost."""

import math
from collections.abc import Callable

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tutelage.config import BatchConfig, OptimizerConfig
from tutelage.models import RewardModel
from tutelage.records import Comparison, Message, Preference, Prompt
from tutelage.trainers.learner import Learner
from tutelage.trainers.reward import (
    ComparedAnswers,
    ComparisonBatch,
    LabelledPair,
    LabelTerms,
    Minibatches,
    encode_comparisons,
    margins,
    train_reward,
)

PAIRS = [
    ((5, 6, 7), (5, 8), 1.0),
    ((9, 10), (9, 11, 12, 13, 14), 0.0),
    ((15, 16, 17, 18), (15, 19, 20), 0.7),
]


def one_by_one(pairs) -> list[ComparedAnswers]:
    """Each pair as the only one of its prompt."""
    return [ComparedAnswers((a, b), (LabelledPair(0, 1, p_a),)) for a, b, p_a in pairs]


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

    def step(model: RewardModel, pairs, *, tokens: int = 10**6, **options):
        optimizer = recording(model, OptimizerConfig(max_gradient_norm=1e9))
        batch = BatchConfig(microbatch_tokens=tokens)
        learner = Learner({"reward_model": optimizer}, batch, torch.Generator())
        (taken,) = train_reward(model, learner, [one_by_one(pairs)], **options)
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
    a, b = scores(model, [a for a, _, _ in PAIRS]), scores(model, [b for _, b, _ in PAIRS])
    expected = 0.0
    for x, y, (_, _, p_a) in zip(a, b, PAIRS, strict=True):
        first = 1 / (1 + math.exp(y - x))
        expected -= p_a * math.log(first) + (1 - p_a) * math.log(1 - first)
        expected += 0.05 * (x + y) ** 2
    metrics, _ = gradient_of(model, PAIRS, centring=0.05)
    assert metrics["loss"] == pytest.approx(expected / 3, rel=1e-5)
    right = [(x > y) == (p[2] > 0.5) for x, y, p in zip(a, b, PAIRS, strict=True)]
    assert metrics["accuracy"] == pytest.approx(sum(right) / 3)


def test_swapping_the_answers_and_the_label_changes_nothing(build, gradient_of):
    swapped = [(b, a, 1 - p_a) for a, b, p_a in PAIRS]
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

    pairs = [(a, b, 1.0) for a, b, _ in PAIRS]
    swapped = [(b, a, 1.0) for a, b, _ in PAIRS]
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
    a, b = scores(model, [a for a, _, _ in PAIRS]), scores(model, [b for _, b, _ in PAIRS])
    expected = [x - y for x, y in zip(a, b, strict=True)]
    for batch_tokens in (1, 60, 640):
        found, labels = margins(model, one_by_one(PAIRS), batch_tokens=batch_tokens)
        assert found == pytest.approx(expected, abs=1e-5)
        assert labels == [p_a for _, _, p_a in PAIRS]


def test_answers_to_one_prompt_are_read_once_and_give_the_same_gradient(build, recording):
    """Three answers in all their three pairs, against each pair with rows of its own."""
    prompt = (5, 6, 7, 8)
    answers = tuple((*prompt, *rest) for rest in ((9,), (10, 11, 12), (13, 14)))
    pairs = (LabelledPair(0, 1, 1.0), LabelledPair(2, 1, 0.3), LabelledPair(0, 2, 0.0))
    together = ComparedAnswers(answers, pairs)
    apart = one_by_one([(answers[a], answers[b], p_a) for a, b, p_a, *_ in pairs])
    assert ComparisonBatch([together]).row_lengths == [4 + 1 + 3 + 2]
    gradients = []
    for groups in ([together], apart):
        model = build()
        assert model.backbone.reads_shared_prefixes
        optimizer = recording(model, OptimizerConfig(max_gradient_norm=1e9))
        learner = Learner({"reward_model": optimizer}, BatchConfig(), torch.Generator())
        (step,) = train_reward(model, learner, [groups])
        gradients.append((step.metrics["loss"], optimizer.gradients[0]))
    (loss, whole), (other, parts) = gradients
    assert loss == pytest.approx(other, rel=1e-5)
    assert (whole - parts).norm() <= 1e-5 * parts.norm()


PROMPT = Prompt("p", (Message("user", "hi"),))


def preference(a: str, b: str, prompt: Prompt = PROMPT) -> Preference:
    return Preference(Comparison(prompt, a, b), 0.8, "someone")


def test_pairs_that_do_not_fit_are_left_out_whole_and_counted(build):
    model = build()
    labels = [("yes", "no"), ("x" * 40, "no"), ("a", "y" * 40), ("no", "maybe")]
    groups, too_long = encode_comparisons(model, [preference(a, b) for a, b in labels])
    assert too_long == 2
    (group,) = groups
    kept = [(group.texts[a], group.texts[b], p_a) for a, b, p_a, *_ in group.pairs]
    assert kept == [
        (model.encode(PROMPT, a), model.encode(PROMPT, b), 0.8)
        for a, b in (("yes", "no"), ("no", "maybe"))
    ]
    assert group.texts.count(model.encode(PROMPT, "no")) == 1


def test_pairs_of_a_prompt_stay_together_up_to_a_limit(build):
    other = Prompt("q", PROMPT.messages)
    labels = [preference("yes", "no", PROMPT if i % 5 else other) for i in range(100)]
    groups, _ = encode_comparisons(build(), labels)
    assert [len(group.pairs) for group in groups] == [20, 32, 32, 16]


def test_minibatches_hold_enough_pairs_and_every_prompt_in_turn():
    groups = [
        ComparedAnswers(((i,), (i, i)), (LabelledPair(0, 1, 1.0),) * (i % 3 + 1)) for i in range(30)
    ]
    batches = list(Minibatches(groups, 12, 5, torch.Generator().manual_seed(0)))
    for batch in batches:
        assert 12 <= sum(len(group.pairs) for group in batch) < 15
    seen = [group.texts for batch in batches for group in batch][:30]
    assert sorted(seen) == [group.texts for group in groups]
    (all_there_is,) = Minibatches(groups[:3], 64, 1, torch.Generator())
    assert len(all_there_is) == 3


def test_a_batch_counts_pairs_and_measures_rows_with_the_prefix_once():
    batch = ComparisonBatch(one_by_one(PAIRS))
    assert batch.row_lengths == [4, 6, 6]
    assert batch.denominator == 3
    assert batch.select([2, 0]).groups == [batch.groups[2], batch.groups[0]]


def weighted(pairs, **columns) -> list[ComparedAnswers]:
    """Each pair alone with its columns: `weighted(PAIRS, weight=[2.0, 1.0, 1.0])`."""
    return [
        ComparedAnswers(
            (a, b), (LabelledPair(0, 1, p_a, **{key: row[i] for key, row in columns.items()}),)
        )
        for i, (a, b, p_a) in enumerate(pairs)
    ]


def loss_of(model: RewardModel, groups, recording, **options) -> float:
    optimizer = recording(model, OptimizerConfig(max_gradient_norm=1e9))
    learner = Learner({"reward_model": optimizer}, BatchConfig(), torch.Generator())
    (taken,) = train_reward(model, learner, [groups], centring=0.0, **options)
    return taken.metrics["loss"]


def test_weights_offsets_errors_and_ties_reach_the_loss(build, recording):
    model = build()
    a, b = scores(model, [a for a, _, _ in PAIRS]), scores(model, [b for _, b, _ in PAIRS])
    margin = [x - y for x, y in zip(a, b, strict=True)]
    probability = [1 / (1 + math.exp(-m)) for m in margin]
    labels = [p for _, _, p in PAIRS]

    def entropy(p: float, q: float) -> float:
        return -p * math.log(q) - (1 - p) * math.log(1 - q)

    weights = [2.0, 0.5, 1.0]
    expected = sum(w * entropy(p, q) for w, p, q in zip(weights, labels, probability, strict=True))
    found = loss_of(build(), weighted(PAIRS, weight=weights), recording)
    assert found == pytest.approx(expected / 3.5, rel=1e-5)

    pairs = [(x, y, 1.0) for x, y, _ in PAIRS]
    offsets = [0.0, 1.0, 2.0]
    expected = sum(math.log1p(math.exp(o - m)) for m, o in zip(margin, offsets, strict=True))
    found = loss_of(build(), weighted(pairs, offset=offsets), recording)
    assert found == pytest.approx(expected / 3, rel=1e-5)

    errors = [0.0, 0.1, 0.3]
    expected = -sum(
        math.log((1 - e) * q + e * (1 - q)) for e, q in zip(errors, probability, strict=True)
    )
    found = loss_of(build(), weighted(pairs, error=errors), recording)
    assert found == pytest.approx(expected / 3, rel=1e-5)

    tied = [(x, y, 0.5) for x, y, _ in PAIRS]
    win = [1 / (1 + math.exp(0.4 - m)) for m in margin]
    lose = [1 / (1 + math.exp(0.4 + m)) for m in margin]
    expected = -sum(math.log(1 - x - y) for x, y in zip(win, lose, strict=True))
    found = loss_of(build(), one_by_one(tied), recording, tie_threshold=0.4)
    assert found == pytest.approx(expected / 3, rel=1e-5)


def test_what_a_judgement_is_worth_is_looked_up_by_annotator_then_source_then_kind():
    terms = LabelTerms(
        weights={"anna": 3.0, "forum": 2.0, "ai": 0.5},
        errors={"ai": 0.1},
        strength_margin=0.5,
    )
    forum = Prompt("q", PROMPT.messages, source="forum")

    def worth(annotator: str, kind: str, prompt: Prompt, **fields) -> tuple[float, float, float]:
        pair = terms.pair(
            0, 1, Preference(Comparison(prompt, "x", "y"), 1.0, annotator, kind, **fields)
        )
        return pair.weight, pair.offset, pair.error

    assert worth("anna", "human", forum) == (3.0, 0.0, 0.0)
    assert worth("bert", "human", forum, weight=2.0) == (4.0, 0.0, 0.0)
    assert worth("gpt", "ai", PROMPT, strength=3.0) == (0.5, 1.5, 0.1)
    assert worth("someone", "human", PROMPT) == (1.0, 0.0, 0.0)
