"""The loop of PPO: what is rewarded, what is learned, what stays."""

import hashlib

import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from tutelage.algorithms import AdaptiveKL, FixedKL
from tutelage.errors import RewardError
from tutelage.records import Score, ScoreStatus

FAILED = Score.failed(ScoreStatus.TIMEOUT, "the service did not answer")


def rewards_of(experience) -> list[np.ndarray]:
    """Rewards per response token, from returns that are sums of what is to come."""
    rows = []
    for returns, mask in zip(experience.returns, experience.response_mask, strict=True):
        to_come = returns[mask].double().numpy()
        rows.append(to_come - np.append(to_come[1:], 0.0))
    return rows


def fingerprint(model) -> str:
    digest = hashlib.sha256()
    for weight in model.state_dict().values():
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def entropy_of(world, experience) -> torch.Tensor:
    return Categorical(logits=logits_of(world.policy, experience)).entropy().mean()


def logits_of(policy, experience) -> torch.Tensor:
    return policy.logits(policy.states(experience))


# Rewards and advantages.


def test_reward_is_the_penalty_on_every_token_and_the_score_on_the_last(bench, ragged_script):
    world = bench(script=ragged_script, kl={"coefficient": 0.3}, value_lam=1.0, still=True)
    (step,) = world.run()
    experience = step.experience
    for i, rewards in enumerate(rewards_of(experience)):
        row = experience.select([i])
        with torch.no_grad():
            mask = row.response_mask
            policy = world.policy.logprobs(row)[mask].numpy()
            reference = world.reference.logprobs(row)[mask].numpy()
        expected = -0.3 * (policy - reference)
        expected[-1] += step.scores[i].value
        np.testing.assert_allclose(rewards, expected, atol=2e-5)
        total = step.scores[i].value - 0.3 * (policy - reference).sum()
        assert rewards.sum() == pytest.approx(total, abs=2e-5)


def test_a_policy_surer_than_the_reference_pays(bench, ragged_script):
    (step,) = bench(script=ragged_script, kl={"coefficient": 1.0}, still=True).run()
    experience = step.experience
    surer = (experience.old_logprobs > experience.ref_logprobs + 0.1)[experience.response_mask]
    first = np.concatenate([rewards[:-1] for rewards in rewards_of(experience)])
    keep = np.concatenate(
        [[True] * (n - 1) + [False] for n in experience.response_lengths.tolist()]
    )
    assert surer.any()
    assert (first[surer.numpy()[keep]] < 0).all()


@pytest.mark.parametrize(
    ("mode", "values"),
    [("keep", [3, 3]), ("penalise", [3, 2]), ("replace", [3, -1]), ("bootstrap", [3, None])],
)
def test_truncated_completion_is_worth_what_the_mode_says(bench, mode, values):
    world = bench(
        script=lambda prompt, sample: [5, 6, 2] if prompt.prompt.id == "p0" else [5] * 9,
        reward=lambda prompts, completions: [Score(3.0)] * len(completions),
        prompts_per_step=2,
        kl={"coefficient": 0.0},
        truncation={"mode": mode, "value": -1.0},
        sampling={"max_tokens": 4},
        still=True,
    )
    (step,) = world.run()
    experience = step.experience
    assert experience.truncated.tolist() == [False, True]
    assert experience.response_lengths.tolist() == [3, 4]
    with torch.no_grad():
        ahead = world.critic.final_values(experience)[1].item()
    assert abs(ahead) > 0.01
    for i, value in enumerate(values):
        expected = 3 + ahead if value is None else value
        returns = experience.returns[i][experience.response_mask[i]]
        assert returns.tolist() == pytest.approx([expected] * len(returns), abs=1e-5)
    assert step.metrics["reward/score"] == 3


def test_dropped_truncations_are_learned_from_nowhere(bench):
    def world(count: int, mode: str):
        return bench(
            script=lambda prompt, sample: [5, 6, 2] if prompt.prompt.id < "p4" else [5] * 9,
            prompts_per_step=count,
            truncation={"mode": mode},
            still=True,
        )

    dropping, short = world(6, "drop"), world(4, "keep")
    (dropped,), _ = dropping.run(), short.run()
    assert dropped.experience.response_mask.any(1).tolist() == [True] * 4 + [False] * 2
    for name in ("policy", "value"):
        torch.testing.assert_close(
            dropping.gradients(name)[0], short.gradients(name)[0], rtol=1e-4, atol=1e-6
        )
    assert dropped.metrics["response/truncated"] == 0


def test_policy_and_critic_have_lambdas_of_their_own(bench, ragged_script):
    """Advantages by the double sum with lambda .95, returns as sums of rewards."""
    world = bench(
        script=ragged_script, still=True, lam=0.95, value_lam=1.0, whiten_advantages=False
    )
    (step,) = world.run()
    experience = step.experience
    for i, rewards in enumerate(rewards_of(experience)):
        mask = experience.response_mask[i]
        values = np.append(experience.values[i][mask].numpy(), 0.0)
        deltas = rewards + values[1:] - values[:-1]
        expected = [
            sum(0.95**k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(deltas))
        ]
        np.testing.assert_allclose(experience.advantages[i][mask].numpy(), expected, atol=2e-5)
        monte_carlo = np.cumsum(rewards[::-1])[::-1]
        np.testing.assert_allclose(experience.returns[i][mask].numpy(), monte_carlo, atol=2e-5)
    assert not experience.advantages.requires_grad


def test_advantages_are_whitened_over_the_round_and_returns_are_not(bench, ragged_script):
    settings = {"script": ragged_script, "prompts_per_step": 7, "batch": {"minibatch": 2}}
    (white,) = bench(**settings, still=True).run()
    (plain,) = bench(**settings, still=True, whiten_advantages=False).run()
    mask = white.experience.response_mask
    whitened, raw = white.experience.advantages[mask], plain.experience.advantages[mask]
    assert whitened.mean().item() == pytest.approx(0, abs=1e-6)
    assert whitened.var(correction=0).item() == pytest.approx(1, abs=1e-5)
    expected = (raw - raw.mean()) / raw.std(correction=0)
    torch.testing.assert_close(whitened, expected, rtol=1e-4, atol=1e-5)
    assert white.experience.returns.equal(plain.experience.returns)


# Failed rewards.


def some_failed(prompts, completions):
    return [
        FAILED if prompt.id in ("p2", "p5") else Score(float(len(completion.tokens)))
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def test_failed_samples_are_learned_from_nowhere(bench, ragged_script, relative_gap):
    """Eight samples of which two failed give the gradients of the other six."""
    eight = bench(script=ragged_script, reward=some_failed, prompts_per_step=8, still=True)
    six = bench(script=ragged_script, reward=some_failed, prompts_per_step=6, still=True)
    eight.prompts = eight.prompts[:8]
    six.prompts = [prompt for prompt in eight.prompts if prompt.prompt.id not in ("p2", "p5")]
    (step,), (other,) = eight.run(), six.run()
    for name in ("policy", "value"):
        assert relative_gap(eight.gradients(name)[0], six.gradients(name)[0]) < 2e-6
    assert step.metrics["reward/failed"] == 0.25
    assert other.metrics["reward/failed"] == 0
    same = ("reward/score", "reward/std", "reward/total", "kl/sequence", "response/length")
    for key in (*same, "advantage/std", "value/explained_variance"):
        assert step.metrics[key] == pytest.approx(other.metrics[key], rel=1e-5), key


def test_too_many_failures_end_the_run_by_name(bench, ragged_script):
    world = bench(
        script=ragged_script,
        reward=lambda prompts, completions: [FAILED, FAILED, Score(1.0), Score(2.0)],
    )
    with pytest.raises(RewardError, match=r"2 of 4 completions.*the service did not answer"):
        world.run()


# Updates.


@pytest.mark.parametrize("tokens", [1, 16, 40])
def test_gradients_do_not_depend_on_the_size_of_micro_batches(
    bench, ragged_script, relative_gap, tokens
):
    settings = {
        "script": ragged_script,
        "prompts_per_step": 8,
        "still": True,
        "kl": {"loss_coefficient": 0.1},
        "entropy_coefficient": 0.1,
        "value_normalise": True,
        "value_clip": 0.2,
    }
    whole, cut = (bench(**settings, batch={"microbatch_tokens": n}) for n in (10_000, tokens))
    whole.run()
    cut.run()
    for name in ("policy", "value"):
        assert relative_gap(cut.gradients(name)[0], whole.gradients(name)[0]) < 2e-6


def test_the_reference_holds_the_policy_through_the_reward(bench, ragged_script, relative_gap):
    """A penalty measured against the policy's own copy would leave both gradients equal."""
    without, held = (
        bench(script=ragged_script, kl={"coefficient": beta}, still=True) for beta in (0.0, 0.5)
    )
    without.run()
    held.run()
    gap = relative_gap(held.gradients("policy")[0], without.gradients("policy")[0])
    assert gap > 0.01


def test_the_reference_holds_the_policy_through_the_loss(bench, ragged_script):
    """The gradient that the term adds is that of the full divergence, by autograd of its own."""
    without, held = (
        bench(script=ragged_script, kl={"loss_coefficient": c}, still=True) for c in (0.0, 0.5)
    )
    (step,), _ = held.run(), without.run()
    added = held.gradients("policy")[0] - without.gradients("policy")[0]
    world, experience = held, step.experience
    mine = Categorical(logits=logits_of(world.policy, experience))
    theirs = Categorical(logits=logits_of(world.reference, experience))
    divergence = torch.distributions.kl_divergence(mine, theirs).mean()
    divergence.backward()
    weights = world.learner.optimizers["policy"].weights
    expected = 0.5 * torch.cat([weight.grad.flatten() for weight in weights])
    assert expected.norm() > 0.1
    torch.testing.assert_close(added, expected, rtol=1e-3, atol=1e-5 * expected.norm().item())
    assert step.metrics["kl/reference"] == pytest.approx(divergence.item(), rel=1e-5)


def test_entropy_bonus_points_towards_more_entropy(bench, ragged_script):
    without, curious = (
        bench(script=ragged_script, entropy_coefficient=c, still=True) for c in (0.0, 0.5)
    )
    (step,), _ = curious.run(), without.run()
    added = curious.gradients("policy")[0] - without.gradients("policy")[0]
    world = curious
    entropy = entropy_of(world, step.experience)
    entropy.backward()
    weights = world.learner.optimizers["policy"].weights
    expected = -0.5 * torch.cat([weight.grad.flatten() for weight in weights])
    torch.testing.assert_close(added, expected, rtol=1e-3, atol=1e-5 * expected.norm().item())
    assert step.metrics["policy/entropy"] == pytest.approx(entropy.item(), rel=1e-5)


def test_divergence_from_the_sampling_policy_starts_at_zero(bench):
    world = bench(
        kl={"old_policy_coefficient": 0.1}, prompts_per_step=8, batch={"minibatch": 4}, epochs=2
    )
    world.run()
    seen = [metrics["kl/old_policy"] for metrics in world.learner.minibatches]
    assert seen[0] == pytest.approx(0, abs=1e-6)
    assert min(seen[1:]) > 1e-6


def test_updates_stop_when_the_policy_has_moved_too_far(bench):
    settings = {"epochs": 8, "policy": {"learning_rate": 1e-4}}
    free, held = bench(**settings), bench(**settings, target_kl=1e-7)
    free.run()
    (step,) = held.run()
    assert len(free.gradients("policy")) == 8
    assert 1 <= len(held.gradients("policy")) < 8
    assert step.metrics["train/stopped_early"] == 1


def test_critic_warms_up_while_the_policy_stays_bit_for_bit(bench):
    world = bench(critic_warmup=2, epochs=2)
    before = fingerprint(world.policy.model)
    value = fingerprint(world.critic)
    world.run(2)
    assert fingerprint(world.policy.model) == before
    assert fingerprint(world.critic) != value
    assert len(world.gradients("value")) == 4
    world = bench(critic_warmup=2, epochs=2)
    world.run(3)
    assert fingerprint(world.policy.model) != before


def test_frozen_critic_never_leaves_its_clip_range(bench):
    world = bench(train=["policy"], value_clip=1e-4, epochs=3, batch={"minibatch": 2})
    value = fingerprint(world.critic)
    for step in world.run(2):
        assert step.metrics["value/clip_fraction"] == 0
    assert fingerprint(world.critic) == value
    moving = bench(value_clip=1e-4, epochs=3, batch={"minibatch": 2})
    assert moving.run()[0].metrics["value/clip_fraction"] > 0


def test_every_trainable_tensor_learns_and_frozen_ones_do_not(bench):
    world = bench(epochs=2, batch={"minibatch": 2})
    models = {"policy": world.policy.model, "value": world.critic}
    before = {
        (name, key): weight.detach().clone()
        for name, model in models.items()
        for key, weight in model.named_parameters()
    }
    reference = fingerprint(world.reference.model)
    world.run()
    still = [
        (name, key)
        for name, model in models.items()
        for key, weight in model.named_parameters()
        if weight.equal(before[name, key]) or not weight.isfinite().all()
    ]
    assert not still
    assert fingerprint(world.reference.model) == reference


def test_reference_is_untouched_and_the_divergence_grows_from_zero(bench):
    world = bench(reference="same", epochs=2, policy={"learning_rate": 3e-3})
    before = fingerprint(world.reference.model)
    steps = world.run(10)
    assert len(world.gradients("policy")) == 20
    assert fingerprint(world.reference.model) == before
    assert not any(
        w.requires_grad or w.grad is not None for w in world.reference.model.parameters()
    )
    first = (steps[0].experience.old_logprobs - steps[0].experience.ref_logprobs).sum(1)
    assert first.abs().max() <= 1e-6
    assert steps[-1].metrics["kl/k3"] > 1e-3


# The weight of the penalty.


class Diary(FixedKL):
    """Writes down what the controller is told."""

    def __init__(self, coefficient: float) -> None:
        super().__init__(coefficient)
        self.entries: list[tuple[float, int]] = []

    def update(self, kl: float, n: int) -> bool:
        self.entries.append((kl, n))
        return super().update(kl, n)


def test_controller_is_told_the_divergence_per_sequence(bench, ragged_script):
    world = bench(script=ragged_script, prompts_per_step=6, still=True)
    world.kl = Diary(0.1)
    (step,) = world.run()
    experience = step.experience
    gaps = (experience.old_logprobs - experience.ref_logprobs).double().numpy()
    mask = experience.response_mask.numpy()
    sums = [gap[m].sum() for gap, m in zip(gaps, mask, strict=True)]
    ((kl, n),) = world.kl.entries
    assert n == 6
    assert kl == pytest.approx(np.mean(sums), rel=1e-5)
    assert step.metrics["kl/token"] == pytest.approx(gaps[mask].mean(), rel=1e-5)
    assert abs(kl - gaps[mask].mean()) > 0.1


def test_new_weight_holds_from_the_next_round(bench):
    world = bench(kl={"coefficient": 0.15})
    world.kl = AdaptiveKL(0.15, target=0.01, horizon=100)
    first, second, third = world.run(3)
    for step, following in ((first, second), (second, third)):
        error = np.clip(step.metrics["kl/sequence"] / 0.01 - 1, -0.2, 0.2)
        expected = step.metrics["kl/coefficient"] * (1 + error * 4 / 100)
        assert following.metrics["kl/coefficient"] == pytest.approx(expected)
    assert first.metrics["kl/coefficient"] == 0.15


# Repeatability.


def test_same_seed_same_metrics_and_other_seed_others(bench):
    def metrics(seed: int) -> list:
        return [step.metrics for step in bench(seed=seed, epochs=2).run(3)]

    first, again, other = metrics(0), metrics(0), metrics(1)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_several_samples_stand_beside_their_prompt(bench):
    world = bench(sampling={"max_tokens": 4, "samples_per_prompt": 3}, prompts_per_step=2)
    (step,) = world.run()
    assert [prompt.prompt.id for prompt in step.prompts] == ["p0"] * 3 + ["p1"] * 3
    for i, prompt in enumerate(step.prompts):
        experience = step.experience
        read = experience.tokens[i][experience.attention_mask[i] & ~experience.response_mask[i]]
        assert tuple(read.tolist()) == prompt.tokens
        written = experience.tokens[i][experience.response_mask[i]]
        assert tuple(written.tolist()) == step.completions[i].tokens
