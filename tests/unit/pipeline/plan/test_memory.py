"""The counts against what torch really keeps."""

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tutelage.config import OptimizerConfig
from tutelage.config.sharing import READ_AT_ONCE
from tutelage.distributed import cores_for
from tutelage.models import Policy
from tutelage.models.causal import Backbone
from tutelage.models.checkpointing import recompute_activations
from tutelage.models.decoder import Decoder
from tutelage.pipeline.plan.memory import (
    FLOAT,
    OPTIMIZER_STATE,
    Pass,
    adapter_weights,
    allocator_overhead,
    decoder_copy,
    kept_activations,
    key_value_cache,
    passing_activations,
    reading_logits,
    rollout,
    update_peak,
)
from tutelage.pipeline.plan.parts import Place
from tutelage.pipeline.plan.sizes import count_model
from tutelage.trainers.optimizer import Optimizer

ROWS, TIME = 5, 59
"""295 tokens, which products on a CPU fill up to 304."""
TOKENS = ROWS * TIME
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


@pytest.fixture
def model_and_size(tiny_causal_lm, tmp_path):
    def build(architecture="llama", **settings):
        model = tiny_causal_lm(architecture, **{**SHAPE, **settings})
        model.config.save_pretrained(tmp_path)
        return model, count_model(tmp_path)

    return build


def bytes_kept(model, compute=torch.float32) -> int:
    """Storage that autograd holds after a forward pass, weights not counted."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept, alive = {}, []

    def keep(tensor):
        alive.append(tensor)
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = torch.randint(0, 64, (ROWS, TIME))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        Backbone(model, compute)(tokens, torch.ones_like(tokens, dtype=torch.bool))
    return sum(size for place, size in kept.items() if place not in weights)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("llama", {}),
        ("llama", {"num_key_value_heads": 1}),
        ("qwen2", {"num_key_value_heads": 2}),
        ("mistral", {"num_key_value_heads": 4}),
        ("qwen3", {"num_key_value_heads": 4, "head_dim": 16}),
        ("gemma", {"num_key_value_heads": 4, "head_dim": 16}),
    ],
)
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_activations_are_what_autograd_keeps(model_and_size, architecture, settings, compute):
    model, size = model_and_size(architecture, **settings)
    counted = kept_activations(Pass(size, TOKENS, compute))
    # Left out: softmax's normaliser of each head and two numbers of each norm, 1 to 2 % at a
    # width of 64.
    assert counted == pytest.approx(bytes_kept(model, getattr(torch, compute)), rel=0.03)


def test_recomputed_blocks_keep_their_input(model_and_size):
    model, size = model_and_size()
    recompute_activations(model)
    model.train()
    one_block = kept_activations(Pass(size, TOKENS, blocks=1)) - kept_activations(
        Pass(size, TOKENS, blocks=0)
    )
    counted = kept_activations(Pass(size, TOKENS, checkpointing=True)) - one_block
    # Positions and rotations, arguments of each block, are small and not counted.
    assert counted == pytest.approx(bytes_kept(model), rel=0.1)


def test_frozen_lower_blocks_keep_nothing(model_and_size):
    model, size = model_and_size()
    policy = Policy(model)
    policy.freeze_layers(2)
    tokens = torch.randint(0, 64, (ROWS, TIME))
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.backbone(tokens, torch.ones_like(tokens, dtype=torch.bool))
    held = sum(size for place, size in kept.items() if place not in weights)
    # The input of the lowest block that is trained has no gradient and is not kept.
    assert kept_activations(Pass(size, TOKENS, blocks=1)) == pytest.approx(held, rel=0.05)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_cache_is_as_large_as_the_decoders(model_and_size, compute):
    model, size = model_and_size(num_key_value_heads=2)
    decoder = Decoder.of(model, getattr(torch, compute))
    assert decoder is not None
    with torch.no_grad():
        _, cache = decoder.prefill(torch.randint(0, 64, (3, 17)), torch.tensor([0, 2, 5]))
    held = sum(store.nbytes for store in (*cache.keys, *cache.values))
    assert key_value_cache(size, 3, 17, compute) == held


def test_prompts_are_read_in_as_many_passes_as_the_decoder_takes(model_and_size, monkeypatch):
    monkeypatch.setitem(READ_AT_ONCE, "cpu", 64)
    model, size = model_and_size()
    decoder = Decoder.of(model)
    assert decoder is not None
    read, embed = [], decoder._embed
    monkeypatch.setattr(decoder, "_embed", lambda ids: read.append(ids.numel()) or embed(ids))
    with torch.no_grad():
        decoder.prefill(torch.zeros(31, 10, dtype=torch.long), torch.zeros(31, dtype=torch.long))
    assert sum(read) == 310
    _, beside = rollout(replace(size, vocabulary=1), 31, 31, 10, 5, "float32", "cpu")
    mask = max(read) * 10 * 6
    assert beside == passing_activations(size, max(read)) + mask


def test_decoder_copies_every_matrix_and_the_head(model_and_size):
    model, size = model_and_size()
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert decoder_copy(size, "float32") == 4 * sum(layer.weight.numel() for layer in layers)
    assert decoder_copy(size, "bfloat16") == 2 * sum(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize("algorithm", ["adamw", "adafactor"])
def test_optimiser_keeps_that_many_bytes_for_each_weight(tiny_causal_lm, algorithm):
    model = tiny_causal_lm(**SHAPE)
    optimizer = Optimizer(model, OptimizerConfig(algorithm=algorithm), 10)
    tokens = torch.zeros(1, 4, dtype=torch.long)
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    held = sum(
        tensor.nbytes
        for state in optimizer.algorithm.state.values()
        for tensor in state.values()
        if tensor.ndim
    )
    weights = sum(weight.numel() for weight in model.parameters())
    # Adafactor keeps a number for each row and column; at a width of 64 these are not yet nothing.
    assert held == pytest.approx(OPTIMIZER_STATE[algorithm] * weights, abs=0.15 * weights)


def test_adapters_are_counted_by_hand(model_and_size):
    _, size = model_and_size(num_key_value_heads=1)
    # Rank 8 in 3 blocks, inputs + outputs: q 64+64, v 64+16.
    assert adapter_weights(size, 8, ("q_proj", "v_proj")) == 8 * 3 * (128 + 80)
    # k like v, o like q, and 64+192 three times.
    assert adapter_weights(size, 8, "all-linear") == 8 * 3 * (2 * 128 + 2 * 80 + 3 * 256)


def test_logits_are_those_of_one_chunk(model_and_size):
    _, size = model_and_size()
    assert reading_logits(size, 100, 2048, 1.0) == 100 * 64 * FLOAT
    assert reading_logits(size, 5000, 2048, 3.0) == 3 * 2048 * 64 * FLOAT


def test_gradients_meet_activations_only_from_the_second_micro_batch_on():
    assert update_peak(gradients=10, activations=7, logits=2, microbatches=1) == 10
    assert update_peak(gradients=5, activations=7, logits=2, microbatches=1) == 9
    assert update_peak(gradients=10, activations=7, logits=2, microbatches=2) == 19


def test_each_core_holds_activations_and_then_a_gradient():
    # Two of two micro-batches: 2 x (7 + 2), or two gradients and their sum.
    assert update_peak(gradients=5, activations=7, logits=2, microbatches=2, cores=2) == 18
    assert update_peak(gradients=10, activations=7, logits=2, microbatches=2, cores=2) == 30
    # The sum of the first two waits while the next two are worked on.
    assert update_peak(gradients=5, activations=7, logits=2, microbatches=3, cores=2) == 23
    # A single one is worked on by itself, and added to nothing.
    assert update_peak(gradients=5, activations=7, logits=2, microbatches=1, cores=8) == 10


def test_rows_are_shared_out_where_the_stages_do_it():
    linear = torch.nn.Linear(4000, 5000, bias=False)
    for place, weights in ((Place("cpu", 2), 20_000_000), (Place("cpu", 2), 20_000_001)):
        whole = [linear] if weights == 20_000_000 else [linear, torch.nn.Linear(1, 1, bias=False)]
        shared = cores_for(torch.nn.ModuleList(whole), 2)
        assert place.sharing(weights) == (shared.count if shared else 1)
    assert Place("cpu", 2).sharing(1000, adapted=True) == 1
    assert Place("cuda").sharing(1000) == 1


def test_shares_of_completions_are_decoded_side_by_side():
    eight = Place("cpu", 8)
    assert eight.decoded_together(1000, rows=100, batch=64) == 64
    # Two shares of 64, of which one core decodes one at a time.
    assert eight.decoded_together(1000, rows=128, batch=256) == 128
    assert Place("cpu", 1).decoded_together(1000, rows=128, batch=256) == 64
    # Eight shares of 512, two at a time, in batches of 256.
    assert Place("cpu", 2).decoded_together(1000, rows=4096, batch=256) == 512
    assert eight.decoded_together(10**9, rows=4096, batch=256) == 256


def test_allocator_gives_large_blocks_back():
    assert allocator_overhead(1000, 64 << 20, "cpu") == 0
    assert allocator_overhead(1000, 1 << 20, "cuda") == 0
    assert 0 < allocator_overhead(1000, 1 << 20, "cpu") < 1000
