"""Frozen blocks: what is computed once is what every pass would compute."""

from dataclasses import replace

import pytest
import torch

from tutelage.errors import ModelError
from tutelage.models import Policy, SharedCritic

SMALL = {"num_hidden_layers": 4, "num_key_value_heads": 1, "head_dim": 16}
WINDOW = {**SMALL, "sliding_window": 3}
FAMILIES = {
    "llama": ("llama", SMALL),
    "llama, tied": ("llama", {**SMALL, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", SMALL),
    "qwen2, window in the upper blocks": (
        "qwen2",
        {**WINDOW, "use_sliding_window": True, "max_window_layers": 3},
    ),
    "qwen3": ("qwen3", SMALL),
    "mistral": ("mistral", SMALL),
    "mistral, window": ("mistral", WINDOW),
    "gemma": ("gemma", SMALL),
    "gemma3, window in every other block": (
        "gemma3_text",
        {**WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2},
    ),
}


@pytest.fixture(params=FAMILIES)
def model(request, tiny_causal_lm):
    """Builds the same model again and again."""
    architecture, shape = FAMILIES[request.param]
    return lambda: tiny_causal_lm(architecture, **shape)


def frozen_by_hand(model, count: int) -> None:
    """The oracle: no gradients for what is frozen, and the whole forward pass every time."""
    model.get_input_embeddings().requires_grad_(False)
    model.model.layers[:count].requires_grad_(False)


def outcome(policy: Policy, rows) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    critic = SharedCritic(policy)
    with torch.no_grad():
        critic.head.weight.copy_(torch.linspace(-1, 1, 32))
    logprobs, values = policy.logprobs(rows), critic.values(rows)
    (logprobs.square().sum() + values.square().sum()).backward()
    named = policy.model.named_parameters()
    return logprobs, values, {name: w.grad for name, w in named if w.grad is not None}


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("side", ["right", "left"])
def test_lower_states_change_neither_numbers_nor_gradients(
    model, lay_out, ragged_sequences, count, side
):
    rows = lay_out(ragged_sequences, width=20, side=side)
    plain = Policy(model())
    frozen_by_hand(plain.model, count)
    policy = Policy(model())
    policy.freeze_layers(count)
    lower = policy.lower_states(rows)
    assert not lower["lower_states"].requires_grad
    expected, found = outcome(plain, rows), outcome(policy, replace(rows, **lower))
    assert found[0].equal(expected[0])
    assert found[1].equal(expected[1])
    assert found[2].keys() == expected[2].keys()
    assert len(found[2]) < len(list(policy.model.parameters()))
    for name, gradient in expected[2].items():
        assert found[2][name].equal(gradient), name


def test_rows_without_lower_states_take_the_whole_pass(model, lay_out, ragged_sequences):
    rows = lay_out(ragged_sequences)
    policy = Policy(model())
    policy.freeze_layers(2)
    with torch.no_grad():
        cached = policy.logprobs(replace(rows, **policy.lower_states(rows)))
        assert policy.logprobs(rows).equal(cached)


def test_frozen_blocks_are_not_run_again(tiny_causal_lm, lay_out, ragged_sequences):
    policy = Policy(tiny_causal_lm("llama", **SMALL))
    policy.freeze_layers(3)
    rows = lay_out(ragged_sequences)
    rows = replace(rows, **policy.lower_states(rows))
    runs = []
    for number, layer in enumerate(policy.model.model.layers):
        layer.register_forward_hook(lambda *_, number=number: runs.append(number))
    policy.logprobs(rows).sum().backward()
    assert runs == [3]


def test_lower_states_are_read_and_not_decoration(tiny_causal_lm, lay_out, ragged_sequences):
    policy = Policy(tiny_causal_lm("llama", **SMALL))
    policy.freeze_layers(2)
    rows = lay_out(ragged_sequences)
    lower = policy.lower_states(rows)["lower_states"]
    with torch.no_grad():
        right = policy.logprobs(replace(rows, lower_states=lower))
        wrong = policy.logprobs(replace(rows, lower_states=lower.flip(0)))
    assert (right - wrong).abs().max() > 0.1


@pytest.mark.parametrize("tied", [False, True])
def test_reference_shares_frozen_weights_and_copies_the_others(
    tiny_causal_lm, lay_out, ragged_sequences, tied
):
    policy = Policy(tiny_causal_lm("llama", **SMALL, tie_word_embeddings=tied))
    policy.freeze_layers(3)
    reference = policy.frozen_copy()
    theirs = dict(reference.model.named_parameters())
    for name, weight in policy.model.named_parameters():
        assert (theirs[name] is weight) == (not weight.requires_grad)
        assert not theirs[name].requires_grad
    trained = {name for name, w in policy.model.named_parameters() if w.requires_grad}
    blocks = {name for name in trained if name.startswith("model.layers.")}
    assert {name.split(".")[2] for name in blocks} == {"3"}
    assert trained - blocks == {"model.norm.weight"} | (set() if tied else {"lm_head.weight"})
    rows = lay_out(ragged_sequences)
    with torch.no_grad():
        lower = policy.lower_states(rows)
        assert reference.lower_states(rows)["lower_states"].equal(lower["lower_states"])
        before = reference.logprobs(rows)
        policy.model.model.layers[3].mlp.down_proj.weight.mul_(2.0)
        assert reference.logprobs(replace(rows, **lower)).equal(before)
        assert not policy.logprobs(replace(rows, **lower)).equal(before)


def test_policy_without_frozen_blocks_does_not_read_those_of_another(
    tiny_causal_lm, lay_out, ragged_sequences
):
    policy = Policy(tiny_causal_lm("llama", **SMALL))
    policy.freeze_layers(2)
    other = Policy(tiny_causal_lm("llama", **SMALL, seed=1))
    rows = lay_out(ragged_sequences)
    with torch.no_grad():
        expected = other.logprobs(rows)
        assert other.logprobs(replace(rows, **policy.lower_states(rows))).equal(expected)


def test_more_frozen_blocks_than_there_are_is_refused(tiny_causal_lm):
    policy = Policy(tiny_causal_lm("llama"))
    with pytest.raises(ModelError, match="frozen_layers is 3, but LlamaModel has only 2 blocks"):
        policy.freeze_layers(3)
    assert all(weight.requires_grad for weight in policy.model.parameters())


@pytest.mark.parametrize(
    ("architecture", "shape", "reason"),
    [
        ("gpt2", {}, "GPT2Model cannot be run in two parts"),
        ("gpt_neox", {}, "GPTNeoXModel cannot be run in two parts"),
        ("gemma2", SMALL, "Gemma2ForCausalLM scales or caps its logits"),
    ],
)
def test_architecture_without_two_parts_is_refused_by_name(
    tiny_causal_lm, architecture, shape, reason
):
    with pytest.raises(ModelError, match=reason):
        Policy(tiny_causal_lm(architecture, **shape)).freeze_layers(1)


def test_parts_that_are_not_the_whole_are_refused(tiny_causal_lm):
    """As of a model that does something to its embeddings behind the door they are put in by."""
    model = tiny_causal_lm("llama", **SMALL)
    forward = type(model.model).forward

    class Scaling(type(model.model)):
        def forward(self, input_ids=None, inputs_embeds=None, **options):
            if inputs_embeds is None:
                inputs_embeds = self.embed_tokens(input_ids)
            return forward(self, inputs_embeds=5.0 * inputs_embeds, **options)

    model.model.__class__ = Scaling
    with pytest.raises(ModelError, match="Scaling cannot be run in two parts"):
        Policy(model).freeze_layers(2)
    assert all(weight.requires_grad for weight in model.parameters())
