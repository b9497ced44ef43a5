"""The fast decoder says what the model's own forward pass says, or declines."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tutelage.config.sharing import READ_AT_ONCE
from tutelage.models import attention
from tutelage.models.decoder import Decoder, _pieces
from tutelage.native import calls
from tutelage.native.compiling import library


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def operations(request, monkeypatch):
    """Of both kinds, wherever there is a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(calls, "library", lambda: None)
    return request.param


FAMILY = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": None, "head_dim": 16},
    "gemma": {"head_dim": 16},
}
OTHERS = {
    "gpt2": {},
    "gpt_neox": {},
    "gemma2": {"head_dim": 16},
    "phi3": {},
    "olmo2": {},
    "smollm3": {"num_hidden_layers": 4},
    "mistral": {"sliding_window": 4, "head_dim": 16},
}
PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]


def build(name: str, **options) -> PreTrainedModel:
    config = AutoConfig.for_model(
        name,
        **{
            "vocab_size": 64,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "initializer_range": 0.2,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        }
        | options,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for name_, weight in model.named_parameters():
        if "norm" in name_ or name_.endswith("bias"):
            # As built they are 1 and 0, and a decoder that forgot them would pass.
            torch.nn.init.normal_(weight, mean=float(weight.detach().mean()), std=0.3)
    return model


def logits_of(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]


@torch.no_grad()
def decoded(decoder: Decoder, more: int) -> tuple[list[list[int]], list[torch.Tensor]]:
    """The prompts with `more` fixed tokens each, read step by step, and the last logits."""
    width = max(map(len, PROMPTS))
    tokens = torch.tensor([[0] * (width - len(ids)) + ids for ids in PROMPTS])
    logits, cache = decoder.prefill(tokens, torch.tensor([width - len(ids) for ids in PROMPTS]))
    texts = [list(ids) for ids in PROMPTS]
    for step in range(more):
        chosen = torch.tensor([(20 + 3 * step + i) % 60 for i in range(len(texts))])
        logits = decoder.step(chosen, cache)
        for text, token in zip(texts, chosen.tolist(), strict=True):
            text.append(token)
    return texts, list(logits)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(("more", "many"), [(0, 64), (1, 64), (40, 64), (1, 1), (40, 1)])
def test_logits_are_those_of_the_model(name, more, many, monkeypatch):
    monkeypatch.setattr(attention, "MANY", many)
    model = build(name, **FAMILY[name])
    decoder = Decoder.of(model)
    assert decoder is not None
    for text, logits in zip(*decoded(decoder, more), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(logits, logits_of(model, text), rtol=1e-4, atol=1e-4)


COMPILED = {"llama", "qwen2", "qwen3", "mistral"}
"""Of Gemma another activation is known to torch alone."""


@pytest.mark.skipif(library() is None, reason="no C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILY)
def test_what_lies_between_products_is_compiled_where_all_of_it_is_known(name, dtype, operations):
    decoder = Decoder.of(build(name, **FAMILY[name]), dtype)
    assert decoder is not None
    assert decoder.native == (operations == "compiled" and name in COMPILED)


def _another_norm(model):
    model.model.norm = torch.nn.LayerNorm(64)


def _another_epsilon(model):
    """That of another norm than it says."""
    norm = model.model.layers[1].post_attention_layernorm
    norm.forward = lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1.0) * norm.weight


def _another_activation(model):
    model.model.layers[1].mlp.act_fn = torch.nn.GELU()


@pytest.mark.parametrize("change", [_another_norm, _another_epsilon, _another_activation])
def test_a_part_that_is_not_what_is_compiled_is_left_to_torch(change):
    """And is right there, or declined."""
    model = build("llama")
    change(model)
    decoder = Decoder.of(model)
    assert decoder is not None
    assert not decoder.native
    for text, logits in zip(*decoded(decoder, 3), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(logits, logits_of(model, text), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 5, 8, 1000])
def test_prompts_may_be_read_in_pieces(tokens, monkeypatch):
    monkeypatch.setitem(READ_AT_ONCE, "cpu", tokens)
    model = build("llama")
    decoder = Decoder.of(model)
    for more in (0, 3):
        for text, logits in zip(*decoded(decoder, more), strict=True):
            with torch.no_grad():
                torch.testing.assert_close(logits, logits_of(model, text), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_piece_is_read_without_the_padding_of_the_others(monkeypatch):
    monkeypatch.setitem(READ_AT_ONCE, "cpu", 5)
    decoder = Decoder.of(build("llama"))
    read = []
    embed = decoder._embed
    monkeypatch.setattr(decoder, "_embed", lambda ids: read.append(ids.tolist()) or embed(ids))
    tokens = torch.tensor([[0, 0, 0, 1, 2], [0, 0, 3, 4, 5], [6, 7, 8, 9, 1]])
    _, cache = decoder.prefill(tokens, torch.tensor([3, 2, 0]))
    assert read == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8, 9, 1]]]
    # What is multiplied by a weight of zero must be a number.
    assert all((store[:2, :, :2] == 0.0).all() for store in (*cache.keys, *cache.values))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 2000))
def test_pieces_are_all_rows_and_of_about_the_same_size(lengths, tokens):
    pieces = _pieces(lengths, tokens)
    assert [row for piece in pieces for row in range(*piece.indices(len(lengths)))] == [
        *range(len(lengths))
    ]
    sizes = [sum(lengths[piece]) for piece in pieces]
    assert all(sizes)
    # The longest row may go to either side of a border.
    fair = sum(lengths) / max(1, sum(lengths) // tokens)
    assert max(sizes) < fair + max(lengths)


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_built_otherwise_is_declined(name):
    assert Decoder.of(build(name, **OTHERS[name])) is None


def test_a_part_that_the_decoder_does_not_know_is_noticed():
    """The negative control: the same names, another computation."""
    assert Decoder.of(build("granite")) is not None
    assert Decoder.of(build("granite", residual_multiplier=0.5)) is None


@pytest.mark.parametrize("name", FAMILY)
def test_bfloat16_products_stay_near(name):
    """bfloat16 has 8 bits: logits of scale 5 are off by some hundredths, and by 0.2 at worst."""
    model = build(name, **FAMILY[name])
    decoder = Decoder.of(model, torch.bfloat16)
    assert decoder is not None
    for text, logits in zip(*decoded(decoder, 10), strict=True):
        with torch.no_grad():
            expected = logits_of(model, text)
        assert (logits.float() - expected).abs().mean() < 0.02 * expected.abs().max()


@torch.no_grad()
def test_rows_can_be_repeated_and_dropped():
    model = build("llama")
    decoder = Decoder.of(model)
    assert decoder is not None
    tokens, start = torch.tensor([[5, 6, 7], [0, 8, 9], [0, 0, 4]]), torch.tensor([0, 1, 2])
    _, cache = decoder.prefill(tokens, start)
    cache.repeat(2)
    texts = [[5, 6, 7], [5, 6, 7], [8, 9], [8, 9], [4], [4]]
    decoder.step(torch.arange(30, 36), cache)
    kept = [3, 5]
    cache.keep(torch.tensor(kept))
    logits = decoder.step(torch.tensor([50, 51]), cache)
    texts = [[*texts[number], 30 + number, last] for number, last in ((3, 50), (5, 51))]
    for row, text in zip(logits, texts, strict=True):
        torch.testing.assert_close(row, logits_of(model, text), rtol=1e-4, atol=1e-4)
    # On into columns for which the stores must grow, and again with one row fewer.
    for step in range(70):
        if step == 50:
            cache.keep(torch.tensor([1]))
            texts = texts[1:]
        tokens = torch.arange(step % 20, step % 20 + len(texts))
        logits = decoder.step(tokens, cache)
        for text, token in zip(texts, tokens.tolist(), strict=True):
            text.append(token)
    torch.testing.assert_close(logits[0], logits_of(model, texts[0]), rtol=1e-4, atol=1e-4)
    assert {len(store) for store in (*cache.keys, *cache.values)} == {1}
    # One column of the prompt was padding of both.
    assert cache.keys[0].shape[2] - 32 < cache.end == len(texts[0])


@torch.no_grad()
def test_refresh_takes_the_new_weights():
    model = build("llama")
    decoder = Decoder.of(model)
    assert decoder is not None
    for weight in model.parameters():
        weight.add_(0.1 * torch.randn_like(weight))
    old = decoded(decoder, 3)[1][0]
    decoder.refresh()
    texts, logits = decoded(decoder, 3)
    expected = logits_of(model, texts[0])
    assert not torch.allclose(old, expected, atol=1e-2)
    torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-4)
