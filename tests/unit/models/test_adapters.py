"""An adapter changes nothing but itself, and off it is as if it had never been there."""

import copy
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from tutelage.errors import CheckpointError, ModelError
from tutelage.generation.plain import PlainDecoder
from tutelage.models import Policy, RewardModel
from tutelage.models.adapters import Adapter, WholeModel, effective_weight
from tutelage.models.decoder import Decoder

IDS = [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]]


def trained(model: PreTrainedModel, **options) -> Adapter:
    """An adapter with weights as after some training: B is not zero."""
    adapter = Adapter(model, **{"rank": 4, "alpha": 8.0, **options})
    for weight in adapter.weights:
        nn.init.normal_(weight, std=0.2)
    return adapter


@torch.no_grad()
def logits(model, dtype: torch.dtype | None = None) -> torch.Tensor:
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        return model(input_ids=torch.tensor(IDS), use_cache=False).logits


def alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """But for the last digits, in which operations of ours differ from those of transformers."""
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def peft_model(base: PreTrainedModel, folder: Path) -> nn.Module:
    from peft import PeftModel

    return PeftModel.from_pretrained(base, folder)


def digest(model: PreTrainedModel) -> str:
    """Of the weights that are not an adapter's, by their plain names."""
    found = {
        name.replace(".base_layer", ""): weight
        for name, weight in model.state_dict().items()
        if "lora_" not in name
    }
    hashed = hashlib.sha256()
    for name in sorted(found):
        hashed.update(name.encode() + found[name].contiguous().numpy().tobytes())
    return hashed.hexdigest()


def test_a_new_adapter_changes_nothing(tiny_causal_lm, architecture):
    model = Policy(tiny_causal_lm(architecture)).model
    before = logits(model)
    Adapter(model)
    assert logits(model).equal(before)


@pytest.mark.parametrize("mode", [True, False])
def test_off_the_model_is_the_base_bit_for_bit(tiny_causal_lm, architecture, mode):
    model = Policy(tiny_causal_lm(architecture)).model
    before = logits(model)
    adapter = trained(model)
    model.train(mode)
    changed = logits(model)
    with adapter.off():
        assert logits(model).equal(before)
    assert logits(model).equal(changed)
    assert (changed - before).abs().max() > 1e-2


def test_each_layer_multiplies_by_w_plus_the_scaled_product(tiny_causal_lm):
    """By hand: y = W x + (alpha / rank) B (A x)."""
    model = tiny_causal_lm("qwen2")
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.bias.normal_()
    plain = copy.deepcopy(model.model.layers[1].self_attn.q_proj)
    adapter = trained(model, rank=2, alpha=6.0)
    layer = model.model.layers[1].self_attn.q_proj
    named = adapter.named_weights()
    a, b = (named[f"model.layers.1.self_attn.q_proj.lora_{x}.weight"] for x in "AB")
    assert (a.shape, b.shape) == ((2, 32), (32, 2))
    x = torch.randn(3, 32)
    expected = x @ plain.weight.T + plain.bias + 3.0 * (x @ a.T) @ b.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(effective_weight(layer), plain.weight + 3.0 * b @ a)
    with adapter.off():
        assert effective_weight(layer).equal(plain.weight)
    assert effective_weight(plain) is plain.weight


def test_only_the_adapter_is_trained(tiny_causal_lm, architecture):
    model = tiny_causal_lm(architecture)
    before = digest(model)
    adapter = Adapter(model, rank=2)
    optimiser = torch.optim.AdamW(adapter.weights, lr=0.1)
    for _ in range(2):
        loss = model(input_ids=torch.tensor(IDS), labels=torch.tensor(IDS)).loss
        loss.backward()
        assert all((w.grad is None) == ("lora_" not in n) for n, w in model.named_parameters())
        optimiser.step()
        optimiser.zero_grad()
    held = {id(w) for group in optimiser.param_groups for w in group["params"]}
    assert held == {id(w) for n, w in model.named_parameters() if "lora_" in n}
    assert held == {id(w) for w in model.parameters() if w.requires_grad}
    assert digest(model) == before
    assert all(w.abs().sum() > 0 for w in adapter.weights)


class TestReference:
    def test_it_is_the_untouched_policy(self, tiny_causal_lm, lay_out, ragged_sequences):
        rows = lay_out(ragged_sequences)
        policy = Policy(tiny_causal_lm("llama"), temperature=0.7)
        with torch.no_grad():
            before = policy.logprobs(rows)
        adapter = trained(policy.model)
        reference = adapter.reference(policy)
        found = reference.logprobs(rows)
        assert found.equal(before)
        assert not found.requires_grad
        assert policy.logprobs(rows).requires_grad
        assert not policy.logprobs(rows).equal(before)
        storage = [{w.data_ptr() for w in each.model.parameters()} for each in (policy, reference)]
        assert storage[0] == storage[1]

    def test_it_is_right_where_the_head_is_not_linear(
        self, tiny_causal_lm, lay_out, ragged_sequences
    ):
        rows = lay_out(ragged_sequences)
        model = tiny_causal_lm("gemma2", num_key_value_heads=1, head_dim=16)
        policy = Policy(model)
        with torch.no_grad():
            before = policy.logprobs(rows)
        reference = trained(model).reference(policy)
        with torch.no_grad():
            assert reference.logprobs(rows).equal(before)
            assert not policy.logprobs(rows).equal(before)

    @pytest.mark.parametrize("mode", [True, False])
    def test_all_is_as_it_was_after_an_error(self, tiny_causal_lm, lay_out, mode):
        policy = Policy(tiny_causal_lm("llama"))
        adapter = trained(policy.model)
        reference = adapter.reference(policy)
        policy.model.train(mode)
        before = logits(policy.model)
        trainable = [w.requires_grad for w in policy.model.parameters()]
        with pytest.raises(IndexError):
            reference.logprobs(lay_out([([5], [1000])]))
        assert logits(policy.model).equal(before)
        assert [w.requires_grad for w in policy.model.parameters()] == trainable
        assert policy.model.training is mode

    def test_its_use_between_forward_and_backward_changes_no_gradient(
        self, tiny_causal_lm, lay_out, ragged_sequences
    ):
        rows = lay_out(ragged_sequences)
        policy = Policy(tiny_causal_lm("llama"))
        adapter = trained(policy.model)
        reference = adapter.reference(policy)

        def gradients(between) -> list[torch.Tensor]:
            loss = policy.logprobs(rows).sum()
            between()
            loss.backward()
            found = [w.grad.clone() for w in adapter.weights]
            adapter.weights.zero_grad()
            return found

        alone = gradients(lambda: None)
        assert all(map(torch.equal, alone, gradients(lambda: reference.logprobs(rows))))

    def test_a_frozen_copy_stays_and_shares_the_base(
        self, tiny_causal_lm, lay_out, ragged_sequences
    ):
        rows = lay_out(ragged_sequences)
        policy = Policy(tiny_causal_lm("llama"))
        adapter = trained(policy.model)
        with torch.no_grad():
            before = policy.logprobs(rows)
        old = policy.frozen_copy()
        off = adapter.reference(policy).frozen_copy()
        with torch.no_grad():
            base = off.logprobs(rows)
            for weight in adapter.weights:
                weight.mul_(2)
            assert old.logprobs(rows).equal(before)
            assert adapter.reference(policy).logprobs(rows).equal(base)
            assert off.logprobs(rows).equal(base)
        own = {w.data_ptr() for w in old.model.parameters()}
        shared = own & {w.data_ptr() for w in policy.model.parameters()}
        assert len(own - shared) == len(adapter.weights)

    def test_without_adapters_it_is_a_copy(self, tiny_causal_lm):
        policy = Policy(tiny_causal_lm("llama"))
        reference = WholeModel(policy.model).reference(policy)
        storage = [{w.data_ptr() for w in each.model.parameters()} for each in (policy, reference)]
        assert not storage[0] & storage[1]


class TestMerged:
    @pytest.mark.parametrize("tied", [True, False])
    def test_it_is_the_same_function(self, tiny_causal_lm, architecture, tied, tmp_path):
        model = tiny_causal_lm(architecture, tie_word_embeddings=tied)
        base = digest(model)
        adapter = trained(model)
        merged = adapter.merged()
        assert type(merged) is type(model)
        expected = logits(model)
        torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
        assert all(w.requires_grad and w.dtype is torch.float32 for w in merged.parameters())
        assert not [name for name, _ in merged.named_parameters() if "lora" in name]
        merged.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert alike(logits(loaded), logits(merged))
        assert logits(model).equal(expected)
        assert digest(model) == base

    def test_to_train_it_leaves_the_adapter_alone(self, tiny_causal_lm):
        model = tiny_causal_lm("llama")
        adapter = trained(model)
        merged = adapter.merged()
        merged(input_ids=torch.tensor(IDS), labels=torch.tensor(IDS)).loss.backward()
        assert all(w.grad is None for w in model.parameters())
        assert all(w.grad is not None for w in merged.parameters())


# peft asks transformers for a property that has got a new name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestSaved:
    def test_peft_puts_it_on_the_base(self, tiny_causal_lm, architecture, tmp_path):
        model = tiny_causal_lm(architecture)
        base = copy.deepcopy(model)
        adapter = trained(model)
        adapter.save(tmp_path, "org/base")
        loaded = peft_model(base, tmp_path)
        assert loaded.peft_config["default"].base_model_name_or_path == "org/base"
        assert alike(logits(loaded), logits(model))

    def test_peft_puts_a_classifier_with_its_head_on_the_base(self, tmp_path):
        model = classifier()
        base = copy.deepcopy(model)
        adapter = trained(model)
        adapter.save(tmp_path, "org/base")
        loaded = peft_model(base, tmp_path)
        assert alike(logits(loaded), logits(model))
        assert not logits(base).equal(logits(classifier()))


def classifier(kind: str = "llama") -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
        num_labels=1,
        initializer_range=0.2,
    )
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_heads_of_a_classifier_are_trained_beside_the_adapter(kind):
    model = classifier(kind)
    head = model.score if kind == "llama" else model.classifier
    adapter = Adapter(model)
    assert type(head) is nn.Linear
    own = {id(w) for w in adapter.weights}
    assert {id(w) for w in head.parameters()} <= own
    assert own == {id(w) for w in model.parameters() if w.requires_grad}
    merged = trained(classifier(kind)).merged()
    assert type(merged) is type(model)


def test_reward_model_reads_groups_alike_with_an_adapter(tiny_tokenizer):
    model = RewardModel(classifier(), tiny_tokenizer)
    trained(model.model)
    groups = [[(5, 6, 7, 8), (5, 6, 9)], [(10, 11), (10, 12, 13)]]
    with torch.no_grad():
        together = model.of_groups(groups)
        alone = model(*model.pad([ids for group in groups for ids in group]))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert alone.std() > 0.1


class TestTargets:
    def test_names_choose_layers(self, tiny_causal_lm):
        adapter = Adapter(tiny_causal_lm("llama"), targets=["q_proj", "layers.1.mlp.down_proj"])
        assert {name.rpartition(".lora_")[0] for name in adapter.named_weights()} == {
            "model.layers.0.self_attn.q_proj",
            "model.layers.1.self_attn.q_proj",
            "model.layers.1.mlp.down_proj",
        }

    def test_all_are_those_below_the_head(self, tiny_causal_lm):
        model = tiny_causal_lm("llama")
        linear = {name for name, each in model.model.named_modules() if isinstance(each, nn.Linear)}
        found = {name.rpartition(".lora_")[0] for name in Adapter(model).named_weights()}
        assert found == {f"model.{name}" for name in linear}
        assert len(found) == 14

    @pytest.mark.parametrize("name", ["lm_head", "proj", "embed_tokens"])
    def test_others_are_refused(self, tiny_causal_lm, name):
        model = tiny_causal_lm("llama")
        with pytest.raises(ModelError, match=rf"'{name}', which is no .* it has down_pro"):
            Adapter(model, targets=["q_proj", name])
        assert all(w.requires_grad for w in model.parameters())


FAMILY = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16, "num_key_value_heads": 1},
    "gemma": {"head_dim": 16, "num_key_value_heads": 1},
}


class TestDecoder:
    @pytest.mark.parametrize("name", FAMILY)
    @torch.no_grad()
    def test_it_decodes_the_adapted_model(self, tiny_causal_lm, name):
        model = tiny_causal_lm(name, **FAMILY[name])
        for each, weight in model.named_parameters():
            if each.endswith("bias"):
                nn.init.normal_(weight)
        before = logits(model)
        adapter = Adapter(model, rank=4)
        decoder = Decoder.of(model)
        assert decoder is not None
        for weight in adapter.weights:
            nn.init.normal_(weight, std=0.2)
        base = digest(model)
        decoder.refresh()
        tokens, start = torch.tensor(IDS), torch.tensor([0, 0])
        _, cache = decoder.prefill(tokens[:, :-1], start)
        found = decoder.step(tokens[:, -1], cache)
        expected = logits(model)[:, -1]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        plain = PlainDecoder(model, torch.float32).prefill(tokens, start)[0]
        torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-4)
        assert (expected - before[:, -1]).abs().max() > 1e-2
        assert digest(model) == base

    @torch.no_grad()
    def test_bfloat16_products_stay_near(self, tiny_causal_lm):
        model = tiny_causal_lm("llama")
        trained(model, compute=torch.bfloat16)
        decoder = Decoder.of(model, torch.bfloat16)
        assert decoder is not None
        found, _ = decoder.prefill(torch.tensor(IDS), torch.tensor([0, 0]))
        expected = logits(model, torch.bfloat16)[:, -1]
        # 8 bits of mantissa, and W + B A is rounded where W x and B A x were rounded apart.
        assert (found.float() - expected).abs().mean() < 0.03 * expected.abs().max()


class TestBfloat16:
    def test_rounded_weights_change_no_result_of_autocast(self, tiny_causal_lm, architecture):
        model = tiny_causal_lm(architecture)
        plain = copy.deepcopy(model)
        adapter = trained(model, compute=torch.bfloat16)
        torch.manual_seed(3)
        other = trained(plain)
        with torch.no_grad():
            for mine, theirs in zip(adapter.weights, other.weights, strict=True):
                theirs.copy_(mine)
        assert {w.dtype for w in adapter.weights} == {torch.float32}
        assert logits(model, torch.bfloat16).equal(logits(plain, torch.bfloat16))
        with adapter.off(), other.off():
            assert logits(model, torch.bfloat16).equal(logits(plain, torch.bfloat16))

    def test_they_take_half_the_memory(self, tiny_causal_lm):
        model = tiny_causal_lm("llama")
        full = sum(m.weight.nbytes for m in model.model.modules() if isinstance(m, nn.Linear))
        Adapter(model, compute=torch.bfloat16)
        kept = [m for m in model.modules() if type(m).__name__ == "RoundedLinear"]
        assert sum(m.weight.nbytes for m in kept) == full / 2
        rounded = {id(m.weight) for m in kept}
        others = {w.dtype for w in model.parameters() if id(w) not in rounded}
        assert others == {torch.float32}

    def test_a_policy_can_be_made_and_merged(self, tiny_causal_lm, lay_out, ragged_sequences):
        model = tiny_causal_lm("qwen2")
        adapter = trained(model, compute=torch.bfloat16)
        rows = lay_out(ragged_sequences)
        policy = Policy(model, compute=torch.bfloat16)
        merged = Policy(adapter.merged())
        with torch.no_grad():
            found, expected = policy.logprobs(rows), merged.logprobs(rows)
        assert {w.dtype for w in merged.model.parameters()} == {torch.float32}
        # Eight bits of mantissa against float32.
        assert (found - expected).abs().max() < 0.05 * expected.abs().max()


class TestState:
    def test_it_is_the_adapter_alone(self, tiny_causal_lm):
        model = tiny_causal_lm("llama")
        adapter = trained(model)
        state = adapter.state_dict()
        assert {"lora_" in name for name in state["weights"]} == {True}
        fresh = Adapter(tiny_causal_lm("llama"), rank=4, alpha=8.0)
        fresh.load_state_dict(state)
        assert logits(fresh.model).equal(logits(model))
        assert fresh.weights[0].data_ptr() != adapter.weights[0].data_ptr()

    def test_another_base_is_refused(self, tiny_causal_lm):
        state = trained(tiny_causal_lm("llama")).state_dict()
        other = tiny_causal_lm("llama")
        with torch.no_grad():
            # One bit of one weight.
            weight = other.model.layers[1].mlp.up_proj.weight
            weight[3, 4] = torch.nextafter(weight[3, 4], torch.tensor(9.0))
        with pytest.raises(CheckpointError, match="other weights"):
            Adapter(other, rank=4).load_state_dict(state)

    @pytest.mark.parametrize("options", [{"rank": 3}, {"targets": ["q_proj"]}])
    def test_another_shape_is_refused(self, tiny_causal_lm, options):
        state = trained(tiny_causal_lm("llama")).state_dict()
        adapter = Adapter(tiny_causal_lm("llama"), **{"rank": 4, **options})
        with pytest.raises(CheckpointError, match="another rank"):
            adapter.load_state_dict(state)


def test_models_work_without_peft():
    program = (
        "import sys; sys.modules['peft'] = None\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "from tutelage.errors import MissingExtraError\n"
        "from tutelage.models.adapters import Adapter\n"
        "config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8,\n"
        "    num_hidden_layers=1, num_attention_heads=1)\n"
        "try:\n    Adapter(LlamaForCausalLM(config))\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "peft is not installed: pip install 'tutelage[lora]'\n", done.stderr
