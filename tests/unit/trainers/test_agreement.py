"""Before the first update the ratio is 1, and the run says so if it is not."""

import pytest
import torch

from tutelage.errors import TrainingError
from tutelage.generation import LocalEngine
from tutelage.models import Policy

UNEVEN = {"prompts_per_step": 9, "batch": {"minibatch": 5, "microbatch_tokens": 24}}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gpt_neox"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_ratio_is_exactly_one_before_the_first_update(bench, architecture, temperature):
    """Several minibatches of several micro-batches of uneven rows, weights left in place."""
    world = bench(
        architecture=architecture,
        temperature=temperature,
        sampling={"temperature": temperature},
        still=True,
        **UNEVEN,
    )
    (step,) = world.run()
    assert step.metrics["policy/ratio_min"] == 1.0
    assert step.metrics["policy/ratio_max"] == 1.0
    assert step.metrics["policy/approx_kl_k3"] == 0.0
    ((epoch,),) = world.learner.plans
    assert sum(map(len, epoch)) > 3
    assert len(set(step.experience.row_lengths)) > 3
    # From the sampler's own forward passes the numbers agree only approximately.
    assert 0 < step.metrics["sampler/gap_max"] <= 1e-4


def test_ratio_is_exactly_one_in_chunks_of_the_head(bench):
    world = bench(still=True, **merged_batch(head_tokens=4))
    (step,) = world.run()
    assert step.experience.response_lengths.sum() > 16
    assert step.metrics["policy/ratio_min"] == 1.0
    assert step.metrics["policy/ratio_max"] == 1.0


def merged_batch(**changes):
    return {**UNEVEN, "batch": {**UNEVEN["batch"], **changes}}


def test_other_shapes_of_later_epochs_stay_close_to_one(bench):
    world = bench(still=True, epochs=4, **UNEVEN)
    (step,) = world.run()
    assert step.metrics["policy/ratio_min"] == pytest.approx(1, abs=1e-5)
    assert step.metrics["policy/ratio_max"] == pytest.approx(1, abs=1e-5)


def test_bfloat16_products_pass_the_check(bench):
    world = bench(
        compute=torch.bfloat16,
        precision={"compute": "bfloat16"},
        **UNEVEN,
    )
    (step,) = world.run()
    assert step.metrics["sampler/gap_mean"] < 0.1
    weights = [*world.policy.model.parameters(), *world.critic.parameters()]
    assert {weight.dtype for weight in weights} == {torch.float32}


def test_another_temperature_in_the_sampler_is_noticed(bench):
    world = bench(sampling={"temperature": 0.7, "max_tokens": 8})
    with pytest.raises(TrainingError, match=r"sampler's log-probabilities.*another temperature"):
        world.run()


def test_dropout_left_on_is_noticed(bench, tiny_causal_lm):
    world = bench(architecture="gpt2")
    wet = {"attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1}
    world.policy = Policy(tiny_causal_lm("gpt2", **wet).train())
    world.engine.load_weights(world.policy)
    with pytest.raises(TrainingError, match=r"expected 1 within.*dropout is on"):
        world.run()


class StaleEngine(LocalEngine):
    """Never takes new weights."""

    def load_weights(self, policy: Policy) -> None:
        self.version += 1


def test_stale_sampler_is_noticed(bench, tiny_tokenizer):
    world = bench(policy={"learning_rate": 0.01})
    old = world.policy.frozen_copy()
    world.engine = StaleEngine(old, tiny_tokenizer, torch.Generator().manual_seed(0))
    with pytest.raises(TrainingError, match=r"sampler has stale weights"):
        world.run(3)
    assert world.engine.version >= 1


def test_weights_that_change_between_rollout_and_update_are_noticed(bench):
    world = bench()

    def drift() -> None:
        with torch.no_grad():
            for weight in world.policy.model.parameters():
                weight.mul_(1.01)

    world.learner.before_fit = drift
    with pytest.raises(TrainingError, match="the policy changed since"):
        world.run()
