"""Log-probabilities of a policy: of the right token, in the right state, of what is sampled."""

import hashlib
from dataclasses import replace

import pytest
import torch
from torch.distributions import Categorical

from tutelage.algorithms import ppo_policy_loss, token_logprobs
from tutelage.models import Policy, disable_dropout


def fingerprint(model) -> str:
    digest = hashlib.sha256()
    for weight in model.state_dict().values():
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def storages(model) -> set[int]:
    return {weight.untyped_storage().data_ptr() for weight in model.parameters()}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_categorical_distribution(
    tiny_causal_lm, lay_out, architecture, temperature
):
    model = tiny_causal_lm(architecture)
    prompt, response = [5, 6, 7, 8], [9, 10, 11, 12, 13, 14]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
        found = Policy(model, temperature=temperature).logprobs(lay_out([(prompt, response)]))[0]
    for t in range(4, 10):
        oracle = Categorical(logits=logits[t - 1] / temperature)
        assert found[t].item() == pytest.approx(
            oracle.log_prob(torch.tensor(response[t - 4])).item(), abs=2e-6
        )
    assert found[:4].eq(0).all()


def test_trained_positions_are_exactly_those_of_the_response(tiny_causal_lm, lay_out):
    policy = Policy(tiny_causal_lm("llama"))
    logprobs = policy.logprobs(lay_out([([5, 6, 7, 8], [9, 10, 11, 12, 13, 2])]))
    assert logprobs[0].detach().nonzero().flatten().tolist() == [4, 5, 6, 7, 8, 9]
    one = policy.logprobs(lay_out([([5, 6, 7, 8], [2])]))
    assert one[0].detach().nonzero().flatten().tolist() == [4]


def test_a_logprob_depends_on_nothing_that_comes_later(tiny_causal_lm, lay_out):
    policy = Policy(tiny_causal_lm("llama"))
    rows = lay_out([([5, 6], [7, 8, 9, 10]), ([5, 6], [7, 8, 11, 12])])
    first, second = policy.logprobs(rows).detach()
    assert first[2:4].equal(second[2:4])
    assert (first[4:] - second[4:]).abs().min() > 1e-3


def test_probabilities_of_all_tokens_add_up_to_one(tiny_causal_lm, lay_out):
    policy = Policy(tiny_causal_lm("llama"), temperature=0.7)
    with torch.no_grad():
        rows = lay_out([([5, 6], [token]) for token in range(64)])
        total = policy.logprobs(rows)[:, 2].exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-5)


def test_stop_token_has_a_gradient_and_what_follows_has_none(tiny_causal_lm, lay_out):
    policy = Policy(tiny_causal_lm("llama"))
    rows = lay_out([([5, 6], [7, 8, 2]), ([5, 6], [7, 8, 9, 10, 11])])
    seen = []

    def read(logits, chosen):
        logits.retain_grad()
        seen.append(logits)
        return (token_logprobs(logits, chosen),)

    (picked,) = policy.read(read, policy.states(rows), rows.tokens[rows.response_mask])
    picked.sum().backward()
    (logits,) = seen
    assert logits.shape == (8, 64)
    stop = logits.grad[2]
    assert stop[2] > 0
    assert stop.sum().item() == pytest.approx(0, abs=1e-6)


def test_dropping_the_temperature_would_leave_the_clip_band(tiny_causal_lm, lay_out):
    model = tiny_causal_lm("llama")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 60, (8, 24), generator=generator).tolist()
    rows = lay_out([(row[:4], row[4:]) for row in tokens])
    with torch.no_grad():
        old = Policy(model, temperature=0.7).logprobs(rows)
        careless = Policy(model).logprobs(rows)
    nothing = torch.zeros_like(old)
    loss = ppo_policy_loss(careless, old, nothing, rows.response_mask, clip=0.2)
    assert loss.metrics["policy/clip_range_fraction"] > 0.5


def test_bfloat16_products_give_float32_logprobs(tiny_causal_lm, lay_out, ragged_sequences):
    model = tiny_causal_lm("llama")
    policy = Policy(model, compute=torch.bfloat16)
    rows = lay_out(ragged_sequences)
    with torch.no_grad():
        logits = policy.logits(policy.states(rows))
        hidden = policy.backbone.before(rows.tokens, rows.attention_mask, rows.response_mask)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = model.lm_head(hidden)
        found = policy.logprobs(rows)
    assert coarse.dtype is torch.bfloat16
    assert found.dtype is torch.float32
    assert logits.dtype is torch.float32
    assert logits.equal(coarse.float())
    chosen = rows.tokens[rows.response_mask]
    expected = torch.log_softmax(coarse.double(), -1).gather(1, chosen[:, None]).squeeze(1)
    torch.testing.assert_close(found[rows.response_mask].double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("architecture", ["gemma2", "cohere"])
def test_heads_that_scale_or_cap_logits_take_the_full_pass(tiny_causal_lm, lay_out, architecture):
    model = tiny_causal_lm(architecture, head_dim=16, num_key_value_heads=1)
    rows = lay_out([([5, 6], [7, 8, 9])])
    with torch.no_grad():
        full = model(input_ids=rows.tokens).logits[0, 1:4]
        assert not torch.allclose(model.lm_head(model.model(rows.tokens)[0])[0, 1:4], full)
        policy = Policy(model, temperature=0.7, head_tokens=2)
        states = policy.states(rows)
        found = policy.logits(states)
        (again,) = policy.read(lambda logits: (logits.sum(1),), states)
    torch.testing.assert_close(found, full / 0.7, rtol=1e-5, atol=1e-5)
    assert again.equal(found.sum(1))


def test_masked_rows_count_nowhere_and_leave_no_nan(tiny_causal_lm, lay_out):
    policy = Policy(tiny_causal_lm("llama"))
    rows = lay_out([([5, 6], [7, 8]), ([5, 6], [9, 10, 11])])
    rows = replace(rows, response_mask=torch.zeros_like(rows.response_mask))
    logprobs = policy.logprobs(rows)
    assert logprobs.requires_grad
    assert logprobs.eq(0).all()
    logprobs.sum().backward()
    assert all(w.grad is None or w.grad.eq(0).all() for w in policy.model.parameters())


def test_reference_has_the_same_weights_in_storage_of_its_own(tiny_causal_lm, lay_out):
    policy = Policy(tiny_causal_lm("llama", tie_word_embeddings=True), temperature=0.7)
    policy.model.train()
    reference = policy.frozen_copy()
    rows = lay_out([([5, 6], [7, 8, 9])])
    with torch.no_grad():
        assert policy.logprobs(rows).equal(reference.logprobs(rows))
    assert not storages(policy.model) & storages(reference.model)
    assert not reference.model.training
    assert not any(weight.requires_grad for weight in reference.model.parameters())
    assert all(weight.requires_grad for weight in policy.model.parameters())
    before = fingerprint(reference.model)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.1)
    assert fingerprint(reference.model) == before != fingerprint(policy.model)


def test_policy_in_training_mode_repeats_itself_once_dropout_is_off(tiny_causal_lm, lay_out):
    wet = {"attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1}
    model = tiny_causal_lm("gpt2", **wet).train()
    rows = lay_out([(list(range(4)), list(range(4, 30)))] * 4)
    policy = Policy(model)
    with torch.no_grad():
        first, second = policy.logprobs(rows), policy.logprobs(rows)
        nothing = torch.zeros_like(first)
        loss = ppo_policy_loss(second, first, nothing, rows.response_mask, clip=0.2)
        assert loss.metrics["policy/clip_range_fraction"] > 0.3
        disable_dropout(model)
        assert policy.logprobs(rows).equal(policy.logprobs(rows))


def test_gradient_checkpointing_changes_no_gradient(tiny_causal_lm, lay_out, ragged_sequences):
    rows = lay_out(ragged_sequences)

    def gradients(checkpointing: bool) -> tuple[torch.Tensor, torch.Tensor]:
        model = tiny_causal_lm("llama").train()
        if checkpointing:
            model.activation_checkpointing_enable()
        loss = Policy(model).logprobs(rows).sum()
        loss.backward()
        return loss.detach(), torch.cat([w.grad.flatten() for w in model.parameters()])

    plain, saving = gradients(False), gradients(True)
    torch.testing.assert_close(saving, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"tie_word_embeddings": True}, {"temperature": 0.7}])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "gemma2"])
def test_chunks_change_neither_logprobs_nor_gradients(
    tiny_causal_lm, lay_out, ragged_sequences, architecture, options
):
    """gemma2 caps its logits, so that they exist in any case, and all at once."""
    rows = lay_out(ragged_sequences)
    tied = {name: value for name, value in options.items() if name.startswith("tie")}

    def outcome(head_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        shape = {"head_dim": 16, "num_key_value_heads": 1} if architecture == "gemma2" else {}
        model = tiny_causal_lm(architecture, **shape, **tied)
        temperature = options.get("temperature", 1.0)
        logprobs = Policy(model, temperature=temperature, head_tokens=head_tokens).logprobs(rows)
        (logprobs * torch.linspace(-1, 1, logprobs.numel()).view_as(logprobs)).sum().backward()
        return logprobs.detach(), torch.cat([w.grad.flatten() for w in model.parameters()])

    (logprobs, gradients), (cut_logprobs, cut_gradients) = outcome(1000), outcome(4)
    torch.testing.assert_close(cut_logprobs, logprobs, rtol=0, atol=2e-6)
    assert (cut_gradients - gradients).norm() <= 2e-6 * gradients.norm()


def test_attention_backends_agree(tiny_causal_lm, lay_out, ragged_sequences, architecture):
    rows = lay_out(ragged_sequences, width=20, side="left")
    with torch.no_grad():
        fused, plain = (
            Policy(tiny_causal_lm(architecture, attn_implementation=backend)).logprobs(rows)
            for backend in ("sdpa", "eager")
        )
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-5)


def test_new_tokens_shift_all_logprobs_of_a_state_alike(tiny_causal_lm, lay_out):
    """A grown vocabulary takes probability from all old tokens in the same proportion."""
    model = tiny_causal_lm("llama")
    rows = lay_out([([5, 6], [token, 9]) for token in (7, 20, 33)])
    with torch.no_grad():
        before = Policy(model).logprobs(rows)[:, 2]
        model.resize_token_embeddings(66, mean_resizing=False)
        policy = Policy(model)
        after = policy.logprobs(rows)[:, 2]
        new = lay_out([([5, 6], [64]), ([5, 6], [65])])
        taken = policy.logprobs(new)[:, 2].exp().sum()
    torch.testing.assert_close(after - before, torch.log1p(-taken).expand(3), rtol=0, atol=1e-5)
