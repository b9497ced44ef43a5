"""A critic in the policy's model is another critic than the policy is a policy."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tutelage.models import Adapter, AdapterCritic, Critic, Policy, recompute_activations
from tutelage.models.adapters import repeated_alike
from tutelage.models.causal import base_model

SCALE = 2.0


def made(
    model, *, std: float = 0.2, frozen_layers: int = 0
) -> tuple[Policy, Adapter, AdapterCritic]:
    """Policy and critic in one model, both adapters and the head as after some training."""
    policy = Policy(model)
    policy.freeze_layers(frozen_layers)
    shape = {"rank": 4, "alpha": 4 * SCALE, "frozen_layers": frozen_layers}
    own = Adapter(model, **shape)
    critic = AdapterCritic(policy, Adapter(model, name="value", **shape))
    for weight in [*own.weights, *critic.parameters()]:
        if std:
            nn.init.normal_(weight, std=std)
    return policy, own, critic


def test_it_has_an_adapter_and_a_head_and_nothing_of_the_policy(tiny_causal_lm):
    policy, own, critic = made(tiny_causal_lm())
    names = {name for name, w in policy.model.named_parameters() if w.requires_grad}
    assert {name.split(".")[-2] for name in names} == {"policy", "value"}
    value = {id(w) for n, w in policy.model.named_parameters() if ".value." in n}
    assert {id(w) for w in critic.parameters()} == value | {id(w) for w in critic.head.parameters()}
    assert not value & {id(w) for w in own.weights}


def test_new_it_values_everything_at_exactly_zero(tiny_causal_lm, lay_out, ragged_sequences):
    _, _, critic = made(tiny_causal_lm(), std=0.0)
    assert critic.values(lay_out(ragged_sequences)).eq(0).all()
    assert all(weight.requires_grad for weight in critic.parameters())


def test_adapters_do_not_see_each_other(tiny_causal_lm, lay_out, ragged_sequences):
    rows = lay_out(ragged_sequences)
    policy, own, critic = made(tiny_causal_lm())
    with torch.no_grad():
        base = own.reference(policy).logprobs(rows)
        logprobs, values = policy.logprobs(rows), critic.values(rows)
        for weight in critic.adapter.weights:
            weight.mul_(1.5)
        assert policy.logprobs(rows).equal(logprobs)
        changed = critic.values(rows)
        assert not changed.equal(values)
        for weight in own.weights:
            weight.mul_(1.5)
        assert critic.values(rows).equal(changed)
        assert not policy.logprobs(rows).equal(logprobs)
        assert own.reference(policy).logprobs(rows).equal(base)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_it_is_a_critic_of_its_own_with_merged_weights(
    name, tiny_causal_lm, lay_out, ragged_sequences
):
    """Values, and by the chain rule dL/dA = s B' dL/dW and dL/dB = s dL/dW A'."""
    rows = lay_out(ragged_sequences, width=20, side="left")
    model = tiny_causal_lm(name)
    policy, own, critic = made(model)
    alone = Critic(critic.adapter.merged())
    alone.head.load_state_dict(critic.head.state_dict())
    target = torch.randn(rows.tokens.shape) * rows.response_mask

    def loss(of: Critic) -> Tensor:
        return (of.values(rows) - target).square().sum()

    torch.testing.assert_close(critic.values(rows), alone.values(rows), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        critic.final_values(rows), alone.final_values(rows), rtol=1e-4, atol=1e-4
    )
    # Between the critic's forward and backward pass the policy's adapter is active again.
    found = loss(critic)
    policy.logprobs(rows).sum().backward()
    policies = [weight.grad.clone() for weight in own.weights]
    found.backward()
    assert all(map(torch.equal, policies, (weight.grad for weight in own.weights)))
    loss(alone).backward()
    named = critic.adapter.named_weights()
    prefix = f"{model.base_model_prefix}."
    checked = 0
    for layer, module in base_model(alone.backbone.model).named_modules():
        if f"{prefix}{layer}.lora_A.weight" in named:
            a, b = (named[f"{prefix}{layer}.lora_{x}.weight"] for x in "AB")
            # GPT-2 stores its matrices the other way round.
            gradient = module.weight.grad if isinstance(module, nn.Linear) else module.weight.grad.T
            for mine, expected in ((a, b.T @ gradient), (b, gradient @ a.T)):
                error = (mine.grad - SCALE * expected).norm() / (SCALE * expected).norm()
                assert error < 1e-4
            checked += 1
    assert checked == len(named) // 2
    torch.testing.assert_close(
        critic.head.weight.grad, alone.head.weight.grad, rtol=1e-4, atol=1e-3
    )


def test_it_reads_what_frozen_blocks_have_made(tiny_causal_lm, lay_out, ragged_sequences):
    rows = lay_out(ragged_sequences)
    policy, own, critic = made(tiny_causal_lm(), frozen_layers=1)
    assert not [name for name in own.named_weights() if "layers.0." in name]
    known = replace(rows, **policy.lower_states(rows))
    reference = own.reference(policy)
    with torch.no_grad():
        for read in (policy.logprobs, reference.logprobs, critic.values):
            torch.testing.assert_close(read(known), read(rows), rtol=1e-5, atol=1e-5)
        assert not reference.logprobs(known).equal(policy.logprobs(known))


def test_saved_it_is_a_critic_of_its_own(tiny_causal_lm, lay_out, ragged_sequences, tmp_path):
    rows = lay_out(ragged_sequences)
    _, _, critic = made(tiny_causal_lm())
    critic.save(tmp_path)
    loaded = Critic.load(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded.values(rows), critic.values(rows), rtol=1e-4, atol=1e-4)
    assert type(loaded) is Critic


@pytest.mark.parametrize("alike", [True, False])
def test_a_pass_that_is_repeated_has_the_adapter_it_had(
    alike, tiny_causal_lm, lay_out, ragged_sequences
):
    """Gradient checkpointing runs each block again, when the policy's adapter is active."""
    rows = lay_out(ragged_sequences)
    policy, own, critic = made(tiny_causal_lm())

    def gradients() -> list[Tensor]:
        loss = critic.values(rows).square().sum() + policy.logprobs(rows).sum()
        loss.backward()
        weights = [*own.weights, *critic.parameters()]
        found = [torch.zeros(()) if w.grad is None else w.grad.clone() for w in weights]
        for weight in weights:
            weight.grad = None
        return found

    expected = gradients()
    recompute_activations(policy.model)
    if not alike:
        for module in policy.model.modules():
            if hasattr(module, "_gradient_checkpointing_func"):
                module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    policy.model.train()
    same = [
        a.shape == b.shape and a.allclose(b, rtol=1e-4, atol=1e-4)
        for a, b in zip(gradients(), expected, strict=True)
    ]
    assert all(same) is alike


def test_repeated_alike_knows_models_without_adapters(tiny_causal_lm):
    first, again = repeated_alike(tiny_causal_lm())()
    with first, again:
        pass
