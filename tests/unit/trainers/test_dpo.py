"""Direct preference optimisation: the loss by hand, the reference, what training does."""

import json
import math
from collections.abc import Callable, Sequence

import pytest
import torch

from tutelage.config import BatchConfig, DPOConfig, OptimizerConfig
from tutelage.models import Adapter, Policy
from tutelage.trainers.dpo import dpo
from tutelage.trainers.finite import FiniteGuard
from tutelage.trainers.learner import Learner
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.pairs import (
    AnswerPair,
    measure_pairs,
    precompute_reference,
)

STOP = 2


def answered(prompt: Sequence[int], answer: Sequence[int]):
    ids = (*prompt, *answer, STOP)
    return ids, (0.0,) * len(prompt) + (1.0,) * (len(answer) + 1)


PAIRS = [
    AnswerPair(answered([5, 6, 7], [8, 9]), answered([5, 6, 7], [10]), 1.0),
    AnswerPair(answered([11], [12]), answered([11], [13, 14, 15, 16, 17]), 0.2),
    AnswerPair(answered([18, 19], []), answered([18, 19], [20, 21]), 0.7),
]


@pytest.fixture
def policy(tiny_causal_lm) -> Policy:
    return Policy(tiny_causal_lm())


@pytest.fixture
def other(tiny_causal_lm) -> Policy:
    return Policy(tiny_causal_lm(seed=1))


def logprob(policy: Policy, answer) -> float:
    """log pi of one answer by itself, token by token."""
    ids, weights = answer
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([ids])).logits[0].double()
    each = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return float((each * torch.tensor(weights[1:])).sum())


@pytest.fixture
def stepped(recording) -> Callable:
    """`stepped(policy, pairs)`: metrics and gradient of one step that moves nothing."""

    def step(policy: Policy, pairs, *, tokens: int = 10**6, **settings):
        optimizer = recording(policy.model, OptimizerConfig(max_gradient_norm=1e9))
        batch = BatchConfig(microbatch_tokens=tokens)
        learner = Learner({"dpo": optimizer}, batch, torch.Generator())
        (taken,) = dpo(policy, learner, [pairs], DPOConfig(**settings))
        return taken.metrics, optimizer.gradients[0]

    return step


def test_loss_compares_whole_answers_with_the_reference(policy, other, stepped):
    pairs = precompute_reference(other, PAIRS)
    metrics, _ = stepped(policy, pairs, beta=0.3)
    total, kl, chosen = 0.0, 0.0, 0.0
    for pair in PAIRS:
        a, b = (logprob(policy, x) - logprob(other, x) for x in (pair.a, pair.b))
        first = 1 / (1 + math.exp(-0.3 * (a - b)))
        total -= pair.p_a * math.log(first) + (1 - pair.p_a) * math.log(1 - first)
        kl -= (a + b) / 2
        chosen += logprob(policy, pair.a if pair.p_a > 0.5 else pair.b)
    assert metrics["loss"] == pytest.approx(total / 3, rel=1e-5)
    assert metrics["dpo/kl"] == pytest.approx(kl / 3, rel=1e-5)
    assert metrics["dpo/chosen_logprob"] == pytest.approx(chosen / 3, rel=1e-5)


def test_length_normalised_loss_divides_by_the_tokens_of_the_answer(policy, stepped):
    """Three and two tokens, the stop among them."""
    metrics, _ = stepped(
        policy, PAIRS[:1], reference="none", length_normalise=True, beta=2.0, target_margin=0.5
    )
    margin = 2 * (logprob(policy, PAIRS[0].a) / 3 - logprob(policy, PAIRS[0].b) / 2)
    assert metrics["loss"] == pytest.approx(math.log1p(math.exp(0.5 - margin)), rel=1e-5)
    assert "dpo/kl" not in metrics


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo"])
def test_policy_starts_at_its_own_reference(policy, stepped, kind):
    pairs = precompute_reference(policy, PAIRS)
    metrics, _ = stepped(policy, pairs, loss=kind, beta=0.5)
    expected = {"sigmoid": math.log(2), "hinge": 1.0, "ipo": 1.0}
    assert metrics["loss"] == pytest.approx(expected[kind], abs=1e-5)
    assert metrics["dpo/margin"] == pytest.approx(0, abs=1e-5)
    assert metrics["dpo/kl"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("tokens", [1, 16, 24])
def test_step_does_not_depend_on_micro_batches(tiny_causal_lm, other, stepped, tokens):
    pairs = precompute_reference(other, PAIRS)
    cut_metrics, cut = stepped(Policy(tiny_causal_lm()), pairs, tokens=tokens)
    metrics, whole = stepped(Policy(tiny_causal_lm()), pairs)
    assert cut_metrics == pytest.approx(metrics, rel=1e-5, abs=1e-6)
    assert (cut - whole).norm() <= 2e-6 * whole.norm()


def test_chunks_of_the_head_change_nothing(tiny_causal_lm, other, stepped):
    pairs = precompute_reference(other, PAIRS)
    _, cut = stepped(Policy(tiny_causal_lm(), head_tokens=2), pairs)
    _, whole = stepped(Policy(tiny_causal_lm()), pairs)
    assert (cut - whole).norm() <= 2e-6 * whole.norm()


def test_swapping_the_answers_and_the_label_changes_nothing(policy, other, stepped):
    swapped = [AnswerPair(pair.b, pair.a, 1 - pair.p_a) for pair in PAIRS]
    metrics, gradient = stepped(policy, precompute_reference(other, PAIRS))
    same_metrics, same = stepped(policy, precompute_reference(other, swapped))
    assert same_metrics == pytest.approx(metrics, rel=1e-5, abs=1e-6)
    assert (same - gradient).norm() <= 2e-6 * gradient.norm()


@pytest.mark.parametrize("batch_tokens", [1, 12, 1000])
def test_reference_does_not_depend_on_batches(policy, batch_tokens):
    read = precompute_reference(policy, PAIRS, batch_tokens=batch_tokens)
    for pair in read:
        expected = [logprob(policy, pair.a), logprob(policy, pair.b)]
        assert pair.reference == pytest.approx(expected, rel=1e-5)
    assert [(pair.a, pair.b, pair.p_a) for pair in read] == [
        (pair.a, pair.b, pair.p_a) for pair in PAIRS
    ]


def test_adapter_switched_off_is_the_reference(tiny_causal_lm):
    expected = precompute_reference(Policy(tiny_causal_lm()), PAIRS)
    policy = Policy(tiny_causal_lm())
    adapter = Adapter(policy.model, rank=2, alpha=4)
    with torch.no_grad():
        for weight in adapter.weights:
            weight.add_(0.1)
    reference = precompute_reference(adapter.reference(policy), PAIRS)
    assert [pair.reference for pair in reference] == [pair.reference for pair in expected]
    moved = precompute_reference(policy, PAIRS)
    assert abs(moved[0].reference[0] - expected[0].reference[0]) > 0.1


def test_training_prefers_the_better_answers(policy):
    pairs = precompute_reference(policy, PAIRS)
    config = OptimizerConfig(learning_rate=1e-3, schedule="constant")
    learner = Learner(
        {"dpo": Optimizer(policy.model, config, 30)}, BatchConfig(), torch.Generator()
    )
    steps = list(dpo(policy, learner, [pairs] * 30, DPOConfig(beta=0.5), start=4))
    assert [step.index for step in steps] == list(range(4, 34))
    assert steps[-1].metrics["loss"] < 0.8 * steps[0].metrics["loss"]
    assert steps[-1].metrics["dpo/accuracy"] == 1
    after = measure_pairs(policy, pairs, DPOConfig(beta=0.5))
    assert after["dpo/margin"] > 0.5
    assert after["dpo/chosen_reward"] > after["dpo/rejected_reward"]


@pytest.mark.parametrize("batch_tokens", [1, 12, 1000])
def test_held_out_metrics_are_those_of_a_step(policy, other, stepped, batch_tokens):
    pairs = precompute_reference(other, PAIRS)
    held_out = measure_pairs(policy, pairs, DPOConfig(), batch_tokens=batch_tokens)
    metrics, _ = stepped(policy, pairs)
    assert held_out == pytest.approx({name: metrics[name] for name in held_out}, rel=1e-5)
    assert {"loss", "dpo/margin"} <= held_out.keys()
    assert measure_pairs(policy, [], DPOConfig()) == {}


def test_pair_that_is_not_finite_is_skipped_and_shown(policy, tmp_path):
    broken = AnswerPair(PAIRS[0].a, PAIRS[0].b, 1.0, (math.nan, 0.0))
    optimizer = Optimizer(policy.model, OptimizerConfig(learning_rate=1e-3), 10)
    guard = FiniteGuard(tmp_path, notify=lambda text: None)
    batch = BatchConfig(microbatch_tokens=1)
    learner = Learner({"dpo": optimizer}, batch, torch.Generator(), guard=guard)
    before = [weight.detach().clone() for weight in policy.model.parameters()]
    (step,) = dpo(policy, learner, [[PAIRS[1], broken]], DPOConfig())
    assert step.metrics["train/not_finite"] == 1
    (file,) = tmp_path.rglob("*.json")
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["row"], row["a"][0]) == (1, list(PAIRS[0].a[0]))
    after = policy.model.parameters()
    assert all(weight.equal(old) for weight, old in zip(after, before, strict=True))
