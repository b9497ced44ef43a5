"""Attention of short rows: the formula, and where it is used."""

import copy
import json

import pytest
import torch

from tutelage.models import Policy, attention, save_model
from tutelage.models.attention import (
    LONGEST,
    LONGEST_PROMPT,
    MANY,
    attend_short_rows,
    new_token_attention,
    new_token_mask,
    prompt_attention,
    short_row_attention,
)

ROUNDING = 2**-8
"""Half of a bfloat16 step, relative to the number."""


def heads(batch: int = 3, time: int = 50, size: int = 16, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    query, key, value, upstream = (
        torch.randn(batch, 4, time, size, generator=random) for _ in range(4)
    )
    rounded = value.bfloat16()
    return query.requires_grad_(), key.requires_grad_(), rounded.requires_grad_(), upstream


@pytest.fixture
def used(monkeypatch) -> list[tuple[int, ...]]:
    """Shapes of the queries that took the short way, call by call."""
    shapes = []

    def spy(query, *args, **options):
        shapes.append(tuple(query.shape))
        return short_row_attention(query, *args, **options)

    monkeypatch.setattr(attention, "short_row_attention", spy)
    return shapes


@pytest.mark.parametrize("rows", [MANY // 2 - 1, MANY // 2])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-6), (torch.bfloat16, ROUNDING)])
@pytest.mark.parametrize("hidden", [False, True])
def test_new_tokens_see_all_columns_but_those_that_a_mask_hides(
    rows, dtype, rounding, hidden, relative_gap
):
    random = torch.Generator().manual_seed(0)
    store = torch.randn(2, rows, 2, 40, 16, generator=random).to(dtype)
    # A part of the store: what lies around it may be anything.
    store[:, :, :, :3] = store[:, :, :, 30:] = torch.nan
    query = torch.randn(rows, 2, 3, 16, generator=random).to(dtype)
    key, value = store[:, :, :, 3:30]
    mask = torch.zeros(rows, 1, 1, 27)
    if hidden:
        mask[1::2, ..., :5] = torch.finfo(dtype).min
    given = mask.to(dtype) if hidden else None
    found = new_token_attention(query, key, value, given, 0.7)
    scores = 0.7 * query.double() @ key.double().transpose(2, 3) + mask.double()
    expected = torch.softmax(scores, -1) @ value.double()
    assert found.shape == query.shape
    assert found.dtype is dtype
    # Three roundings to bfloat16: of scores, weights and the result.
    assert relative_gap(found, expected) < (1 if dtype is torch.float32 else 3) * rounding
    if hidden:
        for_all_layers = new_token_mask(given, 2, 3)
        assert new_token_attention(query, key, value, for_all_layers, 0.7).equal(found)


def test_mask_of_new_tokens_lies_as_their_scores_do():
    """Adding it is then one pass over dense memory, in every layer."""
    few, many = (torch.zeros(rows, 1, 1, 27) for rows in (MANY // 2 - 1, MANY // 2))
    assert new_token_mask(few, 2, 3) is few
    assert new_token_mask(many, 2, 3).shape == (MANY // 2, 2, 3, 27)
    assert new_token_mask(many, 2, 3).transpose(2, 3).is_contiguous()


@pytest.mark.parametrize("time", [LONGEST_PROMPT, LONGEST_PROMPT + 1])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-6), (torch.bfloat16, ROUNDING)])
@pytest.mark.parametrize("padded", [False, True])
def test_prompts_see_what_stands_before_and_no_padding(time, dtype, rounding, padded, relative_gap):
    random = torch.Generator().manual_seed(0)
    # As a decoder has them: `[rows, time, heads, size]` seen from another side.
    query, key, value = (
        torch.randn(3, time, heads, 16, generator=random).to(dtype).transpose(1, 2)
        for heads in (6, 2, 2)
    )
    seen = torch.ones(time, time, dtype=torch.bool).tril().repeat(3, 1, 1, 1)
    if padded:
        seen[1, :, :, :5] = torch.eye(time, dtype=torch.bool)[:, :5]
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(dtype).min)
    found = prompt_attention(query, key, value, mask.to(dtype) if padded else None, 0.7)
    keys, values = (x.double().repeat_interleave(3, 1) for x in (key, value))
    scores = 0.7 * query.double() @ keys.transpose(2, 3) + mask.double()
    expected = torch.softmax(scores, -1) @ values
    assert found.shape == query.shape
    assert found.dtype is dtype
    # Two roundings to bfloat16: of weights and the result.
    assert relative_gap(found, expected) < (1 if dtype is torch.float32 else 2) * rounding


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scale", [0.25, 0.7])
def test_output_and_gradients_are_the_formulas_up_to_one_rounding(causal, scale, relative_gap):
    query, key, value, upstream = heads()
    upstream = upstream.bfloat16()
    exact = [x.detach().double().requires_grad_() for x in (query, key, value)]
    scores = scale * exact[0] @ exact[1].transpose(2, 3)
    if causal:
        later = torch.ones(50, 50, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    expected = torch.softmax(scores, -1) @ exact[2]
    found = short_row_attention(query, key, value, scale, causal=causal)
    assert found.dtype is torch.bfloat16
    assert relative_gap(found, expected) < ROUNDING
    gradients = torch.autograd.grad(found, (query, key, value), upstream)
    wanted = torch.autograd.grad(expected, exact, upstream.double())
    for gradient, want in zip(gradients, wanted, strict=True):
        assert relative_gap(gradient, want) < ROUNDING


def test_every_architecture_takes_it_under_autocast_and_stays_near_float32(
    tiny_causal_lm, architecture, lay_out, ragged_sequences, used
):
    exact = Policy(tiny_causal_lm(architecture))
    policy = Policy(tiny_causal_lm(architecture), compute=torch.bfloat16)
    batch = lay_out(ragged_sequences)
    with torch.no_grad():
        expected = exact.logprobs(batch)
        assert not used
        found = policy.logprobs(batch)
    assert used
    difference = (found - expected)[batch.response_mask].abs()
    assert difference.mean() < 2e-2


def test_groups_of_keys_are_shared_by_their_queries(tiny_causal_lm, used, relative_gap):
    """Against torch's own kernel: in another order, heads would be mixed up."""
    model = tiny_causal_lm("llama", num_attention_heads=4, num_key_value_heads=2).double()
    short = copy.deepcopy(model)
    attend_short_rows(short)
    tokens = torch.arange(3, 15).reshape(2, 6)
    with torch.no_grad():
        expected = model(tokens, use_cache=False).logits
        with torch.autocast("cpu", torch.bfloat16):
            found = short.float()(tokens, use_cache=False).logits
    assert used == [(2, 4, 6, 8)] * 2
    assert (
        relative_gap(torch.log_softmax(found.float(), -1), torch.log_softmax(expected, -1)) < 1e-2
    )


@pytest.mark.parametrize("case", ["no autocast", "left padding", "long rows"])
def test_all_else_is_bit_for_bit_what_it_was(tiny_causal_lm, used, case):
    model = tiny_causal_lm("llama", max_position_embeddings=2 * LONGEST)
    short = copy.deepcopy(model)
    attend_short_rows(short)
    time = LONGEST + 1 if case == "long rows" else 8
    tokens = torch.arange(2 * time).reshape(2, time) % 32
    mask = torch.ones_like(tokens)
    if case == "left padding":
        mask[1, :3] = 0
    enabled = case != "no autocast"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        expected, found = (
            m(tokens, attention_mask=mask, use_cache=False).logits for m in (model, short)
        )
    assert not used
    assert torch.equal(found, expected)


def test_one_token_after_a_cache_is_no_short_row(tiny_causal_lm, used):
    """With more keys than queries, the triangle of what is seen would be another."""
    model = tiny_causal_lm("llama")
    attend_short_rows(model)
    tokens = torch.arange(3, 11)[None]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cache = model(tokens, use_cache=True).past_key_values
        used.clear()
        model(tokens[:, :2], past_key_values=cache, use_cache=True)
    assert not used


def test_a_model_with_another_attention_keeps_it(tiny_causal_lm, used):
    model = tiny_causal_lm("llama", attn_implementation="eager")
    attend_short_rows(model)
    assert model.config._attn_implementation == "eager"


def test_a_saved_model_does_not_name_it(tiny_causal_lm, tiny_tokenizer, tmp_path):
    policy = Policy(tiny_causal_lm("llama"), compute=torch.bfloat16)
    save_model(policy.model, tiny_tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert not [value for value in config.values() if "tutelage" in str(value)]
