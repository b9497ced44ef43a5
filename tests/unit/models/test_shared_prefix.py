"""Several sequences in one row: the states of rows of their own, and none sees another."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.models.causal import Backbone
from tutelage.models.shared_prefix import SharedPrefixRows, shared_length

GROUPS = [
    [(5, 6, 7, 8, 9), (5, 6, 7, 10), (5, 6, 7, 8, 11, 12)],
    [(20, 21)],
    [(13, 14), (15, 16, 17)],
    [(18, 19, 20), (18, 19)],
]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gpt_neox"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_states_are_those_of_rows_of_their_own(tiny_causal_lm, architecture, attention):
    model = tiny_causal_lm(architecture)
    model.set_attn_implementation(attention)
    backbone = Backbone(model)
    assert backbone.reads_shared_prefixes
    with torch.no_grad():
        together = backbone.of_shared_prefixes(SharedPrefixRows.collate(GROUPS, pad=0))
        alone = [
            backbone(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))[0, -1]
            for group in GROUPS
            for ids in group
        ]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-5)


def test_without_positions_of_its_own_the_second_answer_would_come_out_otherwise(tiny_causal_lm):
    """The negative control: positions that count on through the row give other states."""
    backbone = Backbone(tiny_causal_lm("llama"))
    rows = SharedPrefixRows.collate(GROUPS[:1], pad=0)
    with torch.no_grad():
        right = backbone.of_shared_prefixes(rows)
        rows.positions.copy_(torch.arange(rows.tokens.shape[1]))
        wrong = backbone.of_shared_prefixes(rows)
    assert torch.allclose(right[0], wrong[0], atol=1e-5)
    assert not torch.allclose(right[1], wrong[1], atol=1e-3)


def test_an_encoder_is_found_out(tiny_tokenizer):
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        "bert", vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    backbone = Backbone(AutoModel.from_config(config).eval())
    assert not backbone.looks_back_only
    assert not backbone.reads_shared_prefixes


def test_a_model_that_ignores_the_mask_is_found_out(tiny_causal_lm, monkeypatch):
    backbone = Backbone(tiny_causal_lm("llama"))
    states = Backbone._states

    def deaf(self, tokens, **inputs):
        inputs.pop("attention_mask", None)
        return states(self, tokens, **inputs)

    monkeypatch.setattr(Backbone, "_states", deaf)
    assert backbone.looks_back_only
    assert not backbone.reads_shared_prefixes


def test_layout_is_the_one_of_the_picture():
    rows = SharedPrefixRows.collate([[(1, 2, 3, 4, 5), (1, 2, 3, 6, 7, 8)], [(9, 9)]], pad=0)
    assert rows.tokens.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8], [9, 9, 0, 0, 0, 0, 0, 0]]
    assert rows.positions[0].tolist() == [0, 1, 2, 3, 4, 3, 4, 5]
    assert rows.segment.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2], [0, 1, -1, -1, -1, -1, -1, -1]]
    assert rows.row.tolist() == [0, 0, 1]
    assert rows.last.tolist() == [4, 7, 1]
    looks = rows.additive_mask(torch.float32)[0, 0] == 0
    assert looks[7].tolist() == [True, True, True, False, False, True, True, True]


sequences = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6), min_size=1, max_size=4)


@given(group=sequences)
def test_every_sequence_can_be_read_out_of_its_row(group):
    rows = SharedPrefixRows.collate([group], pad=0)
    assert rows.tokens.shape == (1, shared_length(group))
    assert shared_length(group) <= sum(map(len, group))
    looks = rows.additive_mask(torch.float32)[0, 0] == 0
    for ids, last in zip(group, rows.last.tolist(), strict=True):
        assert rows.tokens[0][looks[last]].tolist() == ids
        assert rows.positions[0][looks[last]].tolist() == list(range(len(ids)))
