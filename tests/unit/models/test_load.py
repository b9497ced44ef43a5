"""Models from folders: prepared for training, refused when they are not fit for it."""

import json

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from tutelage.errors import ModelError
from tutelage.models import (
    disable_dropout,
    forbid_low_precision_weights,
    freeze,
    load_causal_lm,
    load_sequence_classifier,
    load_tokenizer,
    new_llama,
    save_model,
)

WET = {
    "llama": {"attention_dropout": 0.1},
    "gpt2": {"attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1},
    "qwen2": {"attention_dropout": 0.1},
    "gpt_neox": {"attention_dropout": 0.1, "hidden_dropout": 0.1},
}


def dropout_left(model) -> list[str]:
    """Names of everything with "drop" in it that is still a positive number."""
    modules = [
        f"{name}.{key}"
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if ((isinstance(module, nn.Dropout) and key == "p") or "drop" in key)
        and isinstance(value, float)
        and value > 0
    ]
    config = [
        key
        for key, value in vars(model.config).items()
        if "drop" in key and isinstance(value, float) and value > 0
    ]
    return modules + config


@pytest.fixture
def folder(tiny_tokenizer, tmp_path):
    """`folder(model)`: the model and the tiny tokenizer saved."""

    def save(model):
        save_model(model, tiny_tokenizer, tmp_path)
        return tmp_path

    return save


def test_loaded_model_has_no_dropout_and_float32_weights(tiny_causal_lm, folder, architecture):
    wet = tiny_causal_lm(architecture, **WET[architecture])
    assert dropout_left(wet)
    model = load_causal_lm(folder(wet.bfloat16()))
    assert not dropout_left(model)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not model.config.use_cache


def test_loaded_classifier_has_no_dropout(tiny_tokenizer, tmp_path):
    config = AutoConfig.for_model(
        "deberta-v2",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=1,
        pooler_dropout=0.1,
        cls_dropout=0.1,
    )
    wet = AutoModelForSequenceClassification.from_config(config)
    assert dropout_left(wet)
    save_model(wet, tiny_tokenizer, tmp_path)
    model = load_sequence_classifier(tmp_path, 0).train()
    assert not dropout_left(model)
    ids = torch.arange(4, 10)[None]
    assert model(input_ids=ids).logits.equal(model(input_ids=ids).logits)


def test_functional_dropout_is_off_too(tiny_causal_lm):
    model = tiny_causal_lm("llama", attention_dropout=0.5).train()
    ids = torch.arange(3, 40)[None]
    assert not model(input_ids=ids).logits.equal(model(input_ids=ids).logits)
    disable_dropout(model)
    assert model(input_ids=ids).logits.equal(model(input_ids=ids).logits)


def test_tied_model_comes_back_tied(tiny_causal_lm, folder):
    model = tiny_causal_lm("llama", tie_word_embeddings=True)
    loaded = load_causal_lm(folder(model))
    pointers = {
        embedding.weight.data_ptr()
        for embedding in (loaded.get_input_embeddings(), loaded.get_output_embeddings())
    }
    assert len(pointers) == 1
    assert sum(w.numel() for w in loaded.parameters()) == sum(w.numel() for w in model.parameters())
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert loaded(input_ids=ids).logits.equal(model(input_ids=ids).logits)


def test_trainable_low_precision_weights_are_refused(tiny_causal_lm):
    for dtype in (torch.bfloat16, torch.float16):
        model = tiny_causal_lm("llama").to(dtype)
        with pytest.raises(ModelError, match="expected float32 master weights"):
            forbid_low_precision_weights(model)
        freeze(model)
        forbid_low_precision_weights(model)


def test_new_llama_fits_its_tokenizer(tiny_tokenizer):
    model = new_llama(tiny_tokenizer, hidden_size=32, layers=2, heads=4, mlp_size=64, context=48)
    config = model.config
    assert (config.vocab_size, config.max_position_embeddings) == (64, 48)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    assert config.tie_word_embeddings
    assert not dropout_left(model)


def test_hidden_size_must_be_divisible_by_heads(tiny_tokenizer):
    with pytest.raises(ModelError, match="30 is not divisible by 4 heads: use 28"):
        new_llama(tiny_tokenizer, hidden_size=30, layers=1, heads=4, mlp_size=64, context=48)


@pytest.mark.parametrize("name", ["no/such/folder", "/no/such/folder"])
def test_missing_folder_is_named(name):
    with pytest.raises(ModelError, match="no/such/folder is no folder"):
        load_causal_lm(name)


def test_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_causal_lm(tmp_path)
    with pytest.raises(ModelError, match=r"has no tokenizer_config\.json"):
        load_tokenizer(tmp_path)


def test_damaged_configuration_is_an_error_in_words(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot load a model from"):
        load_causal_lm(tmp_path)


def test_pickled_weights_are_refused(tiny_causal_lm, tmp_path):
    model = tiny_causal_lm("llama")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load a model from"):
        load_causal_lm(tmp_path)


def test_folder_that_brings_code_is_refused(tmp_path):
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(ModelError, match="cannot load a model from"):
        load_causal_lm(tmp_path)
