"""Imitation: which tokens count, and that cutting and padding change nothing."""

import math

import pytest
import torch
import torch.nn.functional as F

from tutelage.config import BatchConfig, OptimizerConfig
from tutelage.data.chat import IGNORED, encode_demonstration
from tutelage.experience import TokenBatch
from tutelage.models import Policy
from tutelage.records import Message
from tutelage.trainers.learner import Learner
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.sft import imitation_loss, perplexity, sft

STOP = 2
SEQUENCES = [
    ([5, 6, 7, 8, STOP], [0, 0, 1, 1, 1]),
    ([9, 10, STOP], [0, 1, 1]),
    ([11, 12, 13, 14, 15, 16, 17, STOP], [0, 0, 0, 0, 1, 0, 1, 1]),
]


@pytest.fixture
def policy(tiny_causal_lm) -> Policy:
    return Policy(tiny_causal_lm("llama"))


def learner_of(policy: Policy) -> Learner:
    config = OptimizerConfig(learning_rate=1e-3, schedule="constant")
    return Learner({"sft": Optimizer(policy.model, config, 100)}, BatchConfig(), torch.Generator())


def nll(policy: Policy, ids: list[int], weights: list[float]) -> tuple[float, float]:
    """Weighted negative log-likelihood and weight of one sequence, by cross-entropy."""
    labels = [i if w else IGNORED for i, w in zip(ids, weights, strict=True)]
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([ids])).logits[0]
    losses = F.cross_entropy(logits[:-1], torch.tensor(labels[1:]), reduction="none")
    scaled = losses * torch.tensor(weights[1:])
    return scaled.sum().item(), float(sum(weights[1:]))


def loss_of(policy: Policy, rows, pad: int = 0) -> float:
    batch = TokenBatch.collate(rows, pad=pad)
    return imitation_loss(policy, batch, batch.denominator).loss.item()


def test_loss_is_the_cross_entropy_of_the_labelled_tokens(policy):
    """Labels [-100, 6, 2, -100, -100]: the first stop counts, padding with the same id does not."""
    loss = loss_of(policy, [([5, 6, STOP], [0, 1, 1]), ([5, 6, 7, 8, 9], [0] * 5)], pad=STOP)
    batch = TokenBatch.collate([([5, 6, STOP], [0, 1, 1]), ([5] * 5, [0] * 5)], pad=STOP)
    assert batch.tokens[0].tolist() == [5, 6, STOP, STOP, STOP]
    assert batch.weights[0].tolist() == [0, 1, 1, 0, 0]
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([[5, 6, STOP]])).logits[0]
    expected = F.cross_entropy(logits[:2], torch.tensor([6, STOP]))
    assert loss == pytest.approx(expected.item(), abs=1e-5)


def test_loss_of_a_batch_is_the_token_weighted_mean_of_single_losses(policy):
    singles = [nll(policy, ids, weights) for ids, weights in SEQUENCES]
    expected = sum(loss for loss, _ in singles) / sum(weight for _, weight in singles)
    assert loss_of(policy, SEQUENCES) == pytest.approx(expected, rel=1e-6)
    careless = sum(loss / weight for loss, weight in singles) / 3
    assert abs(expected - careless) > 1e-3


def test_fractional_weights_weigh(policy):
    rows = [([5, 6, 7], [0, 0.25, 1.0])]
    loss, weight = nll(policy, *rows[0])
    assert weight == 1.25
    assert loss_of(policy, rows) == pytest.approx(loss / 1.25, rel=1e-5)


@pytest.mark.parametrize("tokens", [1, 8, 16])
def test_step_does_not_depend_on_micro_batches(tiny_causal_lm, recording, tokens):
    def gradient(budget: int) -> tuple[float, torch.Tensor]:
        policy = Policy(tiny_causal_lm("llama"))
        optimizer = recording(policy.model, OptimizerConfig(max_gradient_norm=1e9))
        batch = BatchConfig(microbatch_tokens=budget)
        learner = Learner({"sft": optimizer}, batch, torch.Generator())
        (step,) = sft(policy, learner, [SEQUENCES], pad=0)
        return step.metrics["loss"], optimizer.gradients[0]

    (loss, cut), (whole_loss, whole) = gradient(tokens), gradient(10**6)
    assert loss == pytest.approx(whole_loss, rel=1e-6)
    assert (cut - whole).norm() <= 2e-6 * whole.norm()


def test_chunks_of_the_head_change_nothing(tiny_causal_lm):
    """Four tokens are imitated, in chunks of two."""

    def outcome(head_tokens: int):
        policy = Policy(tiny_causal_lm("llama"), head_tokens=head_tokens)
        batch = TokenBatch.collate(SEQUENCES, pad=0)
        output = imitation_loss(policy, batch, batch.denominator)
        output.loss.backward()
        gradient = torch.cat([weight.grad.flatten() for weight in policy.model.parameters()])
        return output.loss.item(), output.metrics["accuracy"].item(), gradient

    (loss, accuracy, whole), (cut_loss, cut_accuracy, cut) = outcome(100), outcome(2)
    assert cut_loss == pytest.approx(loss, rel=1e-6)
    assert cut_accuracy == accuracy
    assert (cut - whole).norm() <= 2e-6 * whole.norm()


def test_what_is_not_imitated_gets_no_gradient_of_its_own(policy):
    """Another prompt changes the loss, another label of a prompt's token cannot."""
    rows = [([5, 6, 7, 8], [0, 0, 1, 1])]
    batch = TokenBatch.collate(rows, pad=0)
    assert len(policy.states(batch)) == 2
    assert loss_of(policy, rows) != loss_of(policy, [([5, 9, 7, 8], [0, 0, 1, 1])])


def test_only_the_assistant_is_imitated(tiny_tokenizer):
    turns = [Message("user", "hi"), Message("assistant", "yo.")]
    ids, labels = encode_demonstration(tiny_tokenizer, turns)
    written = [i for i, label in zip(ids, labels, strict=True) if label != IGNORED]
    assert tiny_tokenizer.decode(written) == "yo.<eos>"
    assert written == [label for label in labels if label != IGNORED]


def test_loss_on_a_models_own_samples_is_what_it_drew_them_with(bench):
    """A pipeline that shifts or pads wrongly starts far from the model's own perplexity."""
    world = bench(prompts_per_step=8)
    completions = world.engine.generate(world.prompts, world.sampling)
    rows = [
        ([*prompt.tokens, *c.tokens], [0] * len(prompt.tokens) + [1] * len(c.tokens))
        for prompt, c in zip(world.prompts, completions, strict=True)
    ]
    drawn = [logprob for c in completions for logprob in c.logprobs]
    expected = -sum(drawn) / len(drawn)
    assert loss_of(world.policy, rows) == pytest.approx(expected, abs=1e-4)
    assert perplexity(world.policy, rows, pad=0)[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 9, 64])
def test_held_out_loss_does_not_depend_on_batches(policy, batch_tokens):
    loss, accuracy = perplexity(policy, SEQUENCES, pad=0, batch_tokens=batch_tokens)
    assert loss == pytest.approx(loss_of(policy, SEQUENCES), rel=1e-5)
    hits = 0
    for ids, weights in SEQUENCES:
        with torch.no_grad():
            likely = policy.model(input_ids=torch.tensor([ids])).logits[0].argmax(-1)
        hits += sum(int(likely[t - 1]) == ids[t] for t, w in enumerate(weights) if w)
    assert accuracy == pytest.approx(hits / 8)


def test_steps_report_tokens_and_take_every_batch(policy):
    steps = list(sft(policy, learner_of(policy), [SEQUENCES, SEQUENCES[:1]], pad=0))
    assert [(step.index, step.tokens) for step in steps] == [(0, 16), (1, 5)]
    assert steps[1].metrics["sft/learning_rate"] == 1e-3
    assert steps[0].metrics["sft/gradient_norm"] > 0


def test_batch_without_anything_to_imitate_takes_no_step(policy):
    learner = learner_of(policy)
    before = [weight.detach().clone() for weight in policy.model.parameters()]
    (step,) = sft(policy, learner, [[([5, 6, 7], [0, 0, 0])]], pad=0)
    assert step.metrics["loss"] == 0
    assert math.isfinite(step.metrics["sft/gradient_norm"])
    assert (learner.skipped, step.metrics["train/skipped"]) == (1, 1)
    after = policy.model.parameters()
    assert all(weight.equal(old) for weight, old in zip(after, before, strict=True))
