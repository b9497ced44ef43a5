"""What policy, critic and reference share, and what is computed again, changes no number."""

import hashlib

import pytest
import torch

from tutelage.models.causal import base_model


def fingerprint(model) -> str:
    digest = hashlib.sha256()
    for weight in model.state_dict().values():
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def test_loss_does_not_depend_on_chunks_of_the_head(bench, ragged_script, relative_gap):
    """With every term that reads the vocabulary, on a policy that has moved away from its past."""
    settings = {
        "script": ragged_script,
        "temperature": 0.7,
        "sampling": {"temperature": 0.7},
        "entropy_coefficient": 0.3,
        "kl": {"loss_coefficient": 0.5, "old_policy_coefficient": 0.4},
        "prompts_per_step": 8,
        "epochs": 2,
    }
    plain = bench(**settings, batch={"minibatch": 4})
    cut = bench(**settings, batch={"minibatch": 4, "head_tokens": 3})
    plain.run()
    cut.run()
    for whole, parts in zip(plain.learner.minibatches, cut.learner.minibatches, strict=True):
        assert parts == pytest.approx(whole, rel=1e-4, abs=1e-5)
    assert plain.learner.minibatches[-1]["kl/old_policy"] > 1e-4
    for name in ("policy", "value"):
        pairs = list(zip(cut.gradients(name), plain.gradients(name), strict=True))
        assert len(pairs) == 4
        assert relative_gap(*pairs[0]) <= 1e-5
        # Later steps start from weights that have drifted apart by rounding.
        assert max(relative_gap(*pair) for pair in pairs) <= 1e-3


def test_shared_trunk_gets_the_sum_of_both_losses_gradients(bench, ragged_script, relative_gap):
    """A separate critic whose trunk has the same weights gives each loss's gradient by itself."""
    settings = {
        "script": ragged_script,
        "still": True,
        "entropy_coefficient": 0.3,
        "kl": {"loss_coefficient": 0.5},
        "value_clip": 0.2,
        "batch": {"head_tokens": 5, "microbatch_tokens": 16},
    }
    shared, separate = bench(trunk="shared", **settings), bench(trunk="own", **settings)
    (one,), (two,) = shared.run(), separate.run()
    assert one.experience.values.equal(two.experience.values)
    assert one.metrics["loss"] == pytest.approx(two.metrics["loss"], rel=1e-6)
    head = sum(weight.numel() for weight in shared.critic.parameters())
    trunk = sum(weight.numel() for weight in separate.critic.backbone.parameters())
    ((policy,), (value,)) = (separate.gradients(name) for name in ("policy", "value"))
    expected = policy.clone()
    expected[:trunk] += value[:trunk]
    assert value[:trunk].norm() > 0.1 * policy.norm()
    assert relative_gap(shared.gradients("policy")[0], expected) <= 1e-5
    assert relative_gap(shared.gradients("value")[0], value[-head:]) <= 1e-5


@pytest.mark.parametrize(("trunk", "passes"), [("shared", 1), ("own", 2)])
def test_a_shared_trunk_is_passed_once_for_policy_and_values(bench, ragged_script, trunk, passes):
    world = bench(trunk=trunk, script=ragged_script, still=True)
    with_gradients = []
    for model in {world.policy.model.model, base_model(world.critic.backbone.model)}:
        model.layers[0].register_forward_hook(
            lambda *_: with_gradients.append(torch.is_grad_enabled())
        )
    world.run()
    assert sum(with_gradients) == passes


def test_warm_up_trains_the_head_of_a_shared_critic_alone(bench):
    world = bench(trunk="shared", critic_warmup=2)
    before, head = fingerprint(world.policy.model), fingerprint(world.critic)
    steps = world.run(3)
    assert "policy/learning_rate" not in steps[1].metrics
    assert fingerprint(world.critic) != head
    assert steps[0].metrics["value/loss"] != steps[1].metrics["value/loss"]
    assert "policy/learning_rate" in steps[2].metrics
    assert fingerprint(world.policy.model) != before
    world = bench(trunk="shared", critic_warmup=2)
    world.run(2)
    assert fingerprint(world.policy.model) == before


CUT = {
    "prompts_per_step": 9,
    "epochs": 3,
    "batch": {"minibatch": 5, "microbatch_tokens": 24},
    "kl": {"loss_coefficient": 0.2},
}


def freeze_the_first_block(policy) -> None:
    """As a user of torch would: the whole forward pass every time, no gradients below."""
    policy.model.model.embed_tokens.requires_grad_(False)
    policy.model.model.layers[0].requires_grad_(False)


@pytest.mark.parametrize("trunk", ["own", "shared"])
def test_frozen_blocks_are_computed_once_and_nothing_else_changes(bench, trunk):
    world = bench(trunk=trunk, frozen_layers=1, reference="same", **CUT)
    plain = bench(trunk=trunk, prepare=freeze_the_first_block, reference="same", **CUT)
    frozen, runs = world.policy.model.model.layers[0], []
    before = fingerprint(frozen)
    frozen.register_forward_hook(lambda *_: runs.append(torch.is_grad_enabled()))
    steps, expected = world.run(2), plain.run(2)
    for step, other in zip(steps, expected, strict=True):
        assert step.metrics == pytest.approx(other.metrics, rel=1e-4, abs=1e-5)
    for name in ("policy", "value"):
        assert world.gradients(name)[0].equal(plain.gradients(name)[0])
    assert world.learner.minibatches[0]["policy/ratio_min"] == 1.0
    assert world.learner.minibatches[0]["policy/ratio_max"] == 1.0
    assert fingerprint(frozen) == before
    # In no pass with gradients; without, for each micro-batch once and to draw.
    assert runs
    assert not any(runs)


def test_truncation_is_bootstrapped_by_a_shared_critic_as_by_its_copy(bench):
    def script(prompt, _):
        return [5] * 8

    shared, separate = (
        bench(trunk=trunk, script=script, still=True, truncation={"mode": "bootstrap"})
        for trunk in ("shared", "own")
    )
    (one,), (two,) = shared.run(), separate.run()
    assert one.experience.returns.equal(two.experience.returns)


@pytest.mark.parametrize(
    ("architecture", "trunk", "frozen"),
    [("llama", "own", 0), ("llama", "shared", 0), ("llama", "shared", 1), ("gpt2", "own", 0)],
)
def test_activations_computed_again_change_nothing(bench, architecture, trunk, frozen):
    """gpt2 samples through its own forward pass, with a cache that training mode would drop."""
    options = {"architecture": architecture, "trunk": trunk, "frozen_layers": frozen}
    plain = bench(**options, **CUT)
    again = bench(**options, **merged(CUT, {"batch": {"gradient_checkpointing": True}}))
    runs = {}
    for world in (plain, again):
        runs[id(world)] = []
        block = world.policy.backbone.model.base_model.get_submodule(
            "h.1.mlp" if architecture == "gpt2" else "layers.1.mlp"
        )
        block.register_forward_pre_hook(
            lambda *_, world=world: runs[id(world)].append(torch.is_grad_enabled())
        )
    steps, expected = again.run(2), plain.run(2)
    assert [step.metrics for step in steps] == [step.metrics for step in expected]
    assert again.learner.minibatches[0]["policy/ratio_max"] == 1.0
    assert sum(runs[id(again)]) == 2 * sum(runs[id(plain)]) > 0


def merged(base, changes):
    return {**base, **{key: {**base.get(key, {}), **value} for key, value in changes.items()}}
