"""Activations that are computed again: the same gradients, and only while a model is updated."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tutelage.errors import ModelError
from tutelage.models import Policy, RewardModel, recompute_activations, training_mode


def runs_of_blocks(model) -> list[bool]:
    """Fills with an entry for each time that a block of the model is run."""
    runs = []
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    for block in blocks:
        # Not on the block itself, whose hooks are outside of what is computed again, nor at the
        # end, which is not: it stops at the last tensor that is asked for.
        block.mlp.register_forward_pre_hook(lambda *_: runs.append(torch.is_grad_enabled()))
    return runs


def test_gradients_are_the_same_and_blocks_run_twice(
    tiny_causal_lm, lay_out, ragged_sequences, architecture
):
    rows = lay_out(ragged_sequences)

    def outcome(again: bool):
        model = tiny_causal_lm(architecture).train()
        if again:
            recompute_activations(model)
        runs = runs_of_blocks(model)
        Policy(model, head_tokens=5).logprobs(rows).sum().backward()
        return torch.cat([w.grad.flatten() for w in model.parameters()]), sum(runs)

    (plain, once), (recomputed, twice) = outcome(False), outcome(True)
    assert recomputed.equal(plain)
    assert (once, twice) == (2, 4)


def test_gradients_of_a_reward_model_are_the_same(tiny_tokenizer):
    """On rows that share a prompt, with their own mask and positions."""
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
    groups = [[(5, 6, 7), (5, 6, 8, 9)], [(9, 10), (9, 11, 12)]]

    def outcome(again: bool):
        torch.manual_seed(0)
        model = RewardModel(AutoModelForSequenceClassification.from_config(config), tiny_tokenizer)
        if again:
            recompute_activations(model.model)
        assert model.backbone.reads_shared_prefixes
        model.train()
        runs = runs_of_blocks(model)
        model.of_groups(groups).square().sum().backward()
        found = [w.grad.flatten() for w in model.parameters() if w.grad is not None]
        return torch.cat(found), sum(runs)

    (plain, once), (recomputed, twice) = outcome(False), outcome(True)
    assert recomputed.equal(plain)
    assert (once, twice) == (2, 4)


def test_frozen_embeddings_are_given_no_gradients(tiny_causal_lm, lay_out, ragged_sequences):
    model = tiny_causal_lm("llama").train()
    recompute_activations(model)
    model.model.embed_tokens.requires_grad_(False)
    assert not model.model.embed_tokens(torch.tensor([[1, 2]])).requires_grad


def test_architecture_that_cannot_is_refused_by_name(tiny_causal_lm):
    model = tiny_causal_lm("llama")
    model.supports_gradient_checkpointing = False
    with pytest.raises(ModelError, match=r"LlamaForCausalLM.*gradient_checkpointing to false"):
        recompute_activations(model)


def test_training_mode_ends_with_its_block_whatever_happens(tiny_causal_lm):
    resting, training = tiny_causal_lm("llama").eval(), tiny_causal_lm("llama").train()

    def fail():
        with training_mode(resting, training):
            assert resting.model.layers[0].training
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not resting.training
    assert not resting.model.layers[0].training
    assert training.training
