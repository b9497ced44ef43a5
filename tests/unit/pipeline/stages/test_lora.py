"""Stages that train adapters leave an ordinary model, and the adapter beside it."""

import importlib

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tutelage.config import LoRAConfig
from tutelage.errors import ModelError
from tutelage.pipeline.stages.preparation import load_policy, trained_part

AUTO = {
    "sft": AutoModelForCausalLM,
    "dpo": AutoModelForCausalLM,
    "train": AutoModelForCausalLM,
    "reward": AutoModelForSequenceClassification,
}
TOKENS = torch.tensor([[7, 20, 21, 22, 2, 9], [7, 30, 31, 2, 8, 10]])


def run(stage, context):
    # Another order of random numbers than in the process that reads the result.
    torch.manual_seed(11)
    importlib.import_module(f"tutelage.pipeline.stages.{stage.kind}").run(stage, context)
    return context.folder


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(input_ids=TOKENS).logits


@pytest.fixture(scope="module")
def adapted(tiny_recipe):
    def of(kind: str, **options):
        lora = LoRAConfig(**{"rank": 2, "alpha": 4, **options})
        return tiny_recipe.stages[kind].model_copy(update={"lora": lora})

    return of


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", AUTO)
def test_model_is_the_base_with_the_adapter(kind, adapted, context):
    from peft import PeftModel

    stage = adapted(kind)
    folder = run(stage, context())
    merged = AUTO[kind].from_pretrained(folder / "model")
    labels = {"num_labels": 1} if kind == "reward" else {}
    base = AUTO[kind].from_pretrained(stage.model, **labels)
    assert type(merged) is type(base)
    before = logits(base)
    put_on = PeftModel.from_pretrained(base, folder / "adapter")
    torch.testing.assert_close(logits(put_on), logits(merged), rtol=1e-4, atol=1e-4)
    assert (logits(merged) - before).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["sft", "train"])
def test_embeddings_and_norms_are_those_of_the_base(kind, adapted, context):
    stage = adapted(kind)
    folder = run(stage, context())
    states = [
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (folder / "model", stage.model)
    ]
    changed = {name for name, weight in states[0].items() if not weight.equal(states[1][name])}
    assert changed == {name for name in states[0] if "_proj" in name}


def test_card_says_what_was_trained(adapted, context):
    """14 matrices of 32 x 32, 32 x 16 or 32 x 64 in two layers, rank 2."""
    card = (run(adapted("sft"), context()) / "model" / "README.md").read_text()
    per_layer = 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
    assert f"**LoRA**: rank 2, alpha 4, in 14 linear layers: {2 * per_layer:,} weights" in card


def test_named_layers_alone_change(adapted, context):
    stage = adapted("sft", targets=("v_proj",))
    states = [
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (run(stage, context()) / "model", stage.model)
    ]
    changed = {name for name, weight in states[0].items() if not weight.equal(states[1][name])}
    assert changed == {f"model.layers.{i}.self_attn.v_proj.weight" for i in range(2)}


def test_bfloat16_products_round_the_base_once(adapted, context):
    stage = adapted("sft", targets=("v_proj",))
    stage = stage.model_copy(
        update={"precision": stage.precision.model_copy(update={"compute": "bfloat16"})}
    )
    states = [
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (run(stage, context()) / "model", stage.model)
    ]
    name = "model.layers.0.mlp.up_proj.weight"
    assert states[0][name].equal(states[1][name].bfloat16().float())
    assert states[0]["model.embed_tokens.weight"].equal(states[1]["model.embed_tokens.weight"])


def test_a_model_without_a_chat_template_is_refused(tiny_causal_lm, tiny_tokenizer, tmp_path):
    import copy

    plain = copy.deepcopy(tiny_tokenizer)
    plain.chat_template = None
    tiny_causal_lm().save_pretrained(tmp_path)
    plain.save_pretrained(tmp_path)
    load_policy(tmp_path)
    with pytest.raises(ModelError, match=r"2 tokens .* have no embeddings yet"):
        load_policy(tmp_path, lora=LoRAConfig())


def test_activations_may_be_computed_again_with_an_adapter_for_the_critic(tiny_recipe, context):
    """The numbers do not change, although each block is run again with another adapter active."""
    settings = tiny_recipe.stages["train"].model_dump()
    settings |= {"critic": "policy", "critic_trunk": "adapter", "lora": {"rank": 2}}
    settings |= {"probes": None, "reward": settings["reward"] | {"functions": {}}}
    settings["ppo"] |= {"steps": 3, "critic_warmup": 0}
    found = []
    for again in (False, True):
        settings["ppo"]["batch"]["gradient_checkpointing"] = again
        folder = run(type(tiny_recipe.stages["train"]).model_validate(settings), context())
        found.append([(folder / x / "model.safetensors").read_bytes() for x in ("model", "critic")])
    assert found[0] == found[1]


def test_without_lora_all_weights_are_trained(tiny_causal_lm):
    model = tiny_causal_lm()
    part = trained_part(None, model, torch.float32)
    assert part.weights is part.merged() is model
    assert part.card == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_4_bit_weights_are_refused_in_one_sentence(adapted, context):
    """Without bitsandbytes its extra is named; without a GPU, the GPU."""
    from tutelage.errors import TutelageError

    with pytest.raises(TutelageError, match=r"tutelage\[qlora\]|no CUDA GPU"):
        run(adapted("sft", quantise="4bit"), context())
