from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel

from tutelage.config import ModelShape
from tutelage.errors import ModelError
from tutelage.models import new_llama
from tutelage.pipeline.plan.sizes import count_model, size_of_shape


def weights(model) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_shape_of_a_pretrain_stage_gives_the_weights_that_it_will_have(tiny_tokenizer):
    shape = ModelShape(
        hidden_size=48, layers=3, heads=3, mlp_size=80, context=64, vocabulary=len(tiny_tokenizer)
    )
    model = new_llama(tiny_tokenizer, hidden_size=48, layers=3, heads=3, mlp_size=80, context=64)
    size = size_of_shape("base", shape)
    assert size.parameters == weights(model)
    # Blocks alone, by hand: 4 x 48 x 48 for attention and 3 x 48 x 80 for the rest.
    assert size.linear == 3 * (9216 + 11520)
    assert (size.queries, size.keys, size.backbone) == (48, 48, size.parameters)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gpt_neox"])
def test_model_is_counted_from_its_configuration_alone(tmp_path, tiny_causal_lm, architecture):
    model = tiny_causal_lm(architecture)
    model.config.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    size = count_model(tmp_path)
    assert size.parameters == weights(model)
    assert size.backbone == weights(model.base_model)
    assert (size.hidden, size.layers, size.vocabulary) == (32, 2, 64)


def test_counting_needs_no_memory_for_weights(config_only):
    # 3 x 10^11 weights: this would be 1.2 TB.
    folder = config_only(hidden_size=1 << 14, intermediate_size=1 << 16, num_hidden_layers=80)
    assert count_model(folder).parameters > 3e11


def test_tied_head_counts_once(config_only):
    apart, tied = config_only(), config_only(tie_word_embeddings=True)
    assert count_model(apart).parameters - count_model(tied).parameters == 1000 * 64
    assert count_model(apart).backbone == count_model(tied).backbone


def test_heads_that_share_keys_are_told_apart(config_only):
    size = count_model(config_only())
    assert (size.queries, size.keys) == (64, 32)
    assert size.linear == 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160)


def test_encoder_is_counted_without_a_head(config_only):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
    folder = config_only("bert", intermediate_size=64, **sizes)
    text = Path(folder, "config.json").read_text()
    Path(folder, "config.json").write_text(
        text.replace("{", '{"architectures": ["BertForSequenceClassification"],', 1)
    )
    size = count_model(folder)
    assert size.backbone == weights(AutoModel.from_config(AutoConfig.from_pretrained(folder)))
    assert not size.fast


def test_only_models_of_the_fast_decoders_family_are_copied_for_it(config_only):
    gpt2 = config_only("gpt2", n_embd=32, n_layer=1, n_head=2, vocab_size=50)
    windowed = config_only("mistral", hidden_size=32, num_attention_heads=2, sliding_window=16)
    assert count_model(config_only()).fast
    assert not count_model(gpt2).fast
    assert not count_model(windowed).fast


def test_normed_heads_are_seen(config_only):
    qwen = config_only("qwen3", hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    assert count_model(qwen).normed_heads
    assert not count_model(config_only()).normed_heads


def test_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json: it is not a model folder"):
        count_model(tmp_path)


def test_hub_that_cannot_be_reached_is_named():
    with pytest.raises(ModelError, match="the size of some/model is not known") as caught:
        count_model("some/model")
    assert "or a name on a hub that can be reached from here" in str(caught.value)


def test_count_agrees_with_a_published_one(config_only):
    folder = config_only(
        vocab_size=49152,
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        tie_word_embeddings=True,
    )
    # SmolLM2-135M as its authors publish it.
    assert count_model(folder).parameters == 134_515_008
