"""The loops without a critic: what each adds to PPO's, against numbers worked out by themselves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tutelage.algorithms import FixedKL, MovingBaseline
from tutelage.config import (
    GRPOConfig,
    ReinforceConfig,
    ReinforcePPConfig,
    RLOOConfig,
    RoundsConfig,
)
from tutelage.records import Score, ScoreStatus
from tutelage.trainers.grpo import grpo
from tutelage.trainers.reinforce import reinforce
from tutelage.trainers.reinforce_pp import reinforce_pp
from tutelage.trainers.rloo import rloo
from tutelage.trainers.round import RoundStep

FAILED = Score.failed(ScoreStatus.TIMEOUT, "the service did not answer")
CONFIGS = {
    "grpo": GRPOConfig,
    "rloo": RLOOConfig,
    "reinforce": ReinforceConfig,
    "reinforce++": ReinforcePPConfig,
}
SAMPLES = 3
ROWS = 4 * SAMPLES


@dataclass
class World:
    """The parts of the PPO bench under another learner."""

    parts: Any
    config: RoundsConfig
    baseline: MovingBaseline

    def rounds(self, count: int = 1) -> Iterator[RoundStep]:
        parts, config = self.parts, self.config
        models = (parts.policy, parts.reference)
        world = (parts.engine, parts.reward, parts.learner, [parts.prompts] * count)
        beta = FixedKL(config.kl.coefficient)
        match config:
            case GRPOConfig():
                return grpo(*models, *world, parts.sampling, config)
            case RLOOConfig():
                return rloo(*models, *world, beta, parts.sampling, config)
            case ReinforceConfig():
                return reinforce(*models, *world, beta, self.baseline, parts.sampling, config)
            case ReinforcePPConfig():
                return reinforce_pp(*models, *world, beta, parts.sampling, config)
        raise AssertionError(config)

    def run(self, count: int = 1) -> list[RoundStep]:
        return list(self.rounds(count))

    @property
    def gradients(self) -> list[Tensor]:
        return self.parts.gradients("policy")


@pytest.fixture
def world(bench, ragged_script) -> Callable[..., World]:
    """`world("grpo", epochs=2, still=True)`: four prompts, three completions each, all scripted."""

    def build(algorithm: str, *, reward: Any = None, batch: Any = None, **options: Any) -> World:
        outside = {k: options.pop(k) for k in ("still", "reference", "script") if k in options}
        minibatch = {"minibatch": ROWS, **(batch or {})}
        settings = {
            "prompts_per_step": 4,
            "sampling": {"max_tokens": 8, "samples_per_prompt": SAMPLES},
            "truncation": {"mode": "keep"},
            "policy": {"learning_rate": 1e-3, "schedule": "constant", "max_gradient_norm": 1e9},
            **options,
            "batch": minibatch,
        }
        given = {} if reward is None else {"reward": reward}
        parts = bench(
            script=outside.pop("script", ragged_script),
            train=("policy",),
            sampling=settings["sampling"],
            batch=minibatch,
            **given,
            **outside,
        )
        config = CONFIGS[algorithm].model_validate(settings)
        return World(parts, config, MovingBaseline())

    return build


def per_row(step: RoundStep, values: Tensor) -> list[np.ndarray]:
    mask = step.experience.response_mask
    return [row[kept].double().numpy() for row, kept in zip(values, mask, strict=True)]


def rewards_of(step: RoundStep, beta: float) -> list[np.ndarray]:
    """Penalty on every token, score on the last: by hand, row by row."""
    experience = step.experience
    divergences = per_row(step, experience.old_logprobs - experience.ref_logprobs)
    rewards = [-beta * row for row in divergences]
    for row, score in zip(rewards, step.scores, strict=True):
        row[-1] += score.value
    return rewards


def to_come(rewards: np.ndarray, gamma: float = 1.0) -> np.ndarray:
    """The discounted sum of the rewards from each token on."""
    return np.array(
        [
            sum(gamma**k * reward for k, reward in enumerate(rewards[t:]))
            for t in range(len(rewards))
        ]
    )


# Credit.


@pytest.mark.parametrize("scale", [False, True])
def test_grpo_compares_the_scores_of_a_prompt_and_leaves_the_kl_out(world, scale):
    (step,) = world("grpo", scale_by_std=scale, still=True).run()
    scores = np.array([score.value for score in step.scores]).reshape(-1, SAMPLES)
    expected = scores - scores.mean(1, keepdims=True)
    if scale:
        expected /= scores.std(1, keepdims=True)
    assert scores.std(1).min() > 0.01
    for advantages, one in zip(
        per_row(step, step.experience.advantages), expected.flatten(), strict=True
    ):
        # 1e-6 is added to the standard deviation.
        np.testing.assert_allclose(advantages, one, atol=2e-4 if scale else 1e-5)
    assert step.metrics["group/std"] == pytest.approx(scores.std(1).mean(), rel=1e-5)
    assert step.metrics["group/no_signal"] == 0


def test_rloo_compares_scores_minus_the_divergence_of_the_whole_completion(world):
    (step,) = world("rloo", kl={"coefficient": 0.3}, still=True).run()
    totals = np.array([rewards.sum() for rewards in rewards_of(step, 0.3)]).reshape(-1, SAMPLES)
    others = (totals.sum(1, keepdims=True) - totals) / (SAMPLES - 1)
    expected = (totals - others).flatten()
    for advantages, one in zip(per_row(step, step.experience.advantages), expected, strict=True):
        np.testing.assert_allclose(advantages, one, atol=1e-4)  # Sums of float32.


def test_reinforce_subtracts_the_mean_of_earlier_rounds_from_what_is_to_come(world):
    first, second = world("reinforce", kl={"coefficient": 0.3}, still=True).run(2)
    returns = [to_come(row) for row in rewards_of(first, 0.3)]
    for found, expected in zip(per_row(first, first.experience.advantages), returns, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    mean = np.concatenate(returns).mean()
    assert first.metrics["advantage/baseline"] == 0
    assert second.metrics["advantage/baseline"] == pytest.approx(mean, abs=1e-5)
    for found, expected in zip(per_row(second, second.experience.advantages), returns, strict=True):
        np.testing.assert_allclose(found, expected - mean, atol=2e-5)


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize(("baseline", "centred"), [("batch", True), ("none", False)])
def test_reinforce_with_the_rounds_own_mean_and_without_any(world, baseline, centred, gamma):
    (step,) = world("reinforce", baseline=baseline, gamma=gamma, still=True).run()
    returns = np.concatenate([to_come(row, gamma) for row in rewards_of(step, 0.05)])
    found = np.concatenate(per_row(step, step.experience.advantages))
    np.testing.assert_allclose(found, returns - centred * returns.mean(), atol=1e-5)


def test_baseline_learns_nothing_from_a_round_that_is_not_finite(world):
    each = world("reinforce", still=True)
    with torch.no_grad():
        next(each.parts.reference.model.parameters()).fill_(torch.nan)
    (step,) = each.run()
    assert step.metrics["train/not_finite"] == 1
    assert each.baseline.state_dict() == {"value": 0.0, "rounds": 0}


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("baseline", ["none", "group"])
def test_reinforce_pp_normalises_returns_over_the_round(world, baseline, gamma):
    options = {"baseline": baseline, "gamma": gamma, "kl": {"coefficient": 0.3}}
    (step,) = world("reinforce++", **options, still=True).run()
    rewards = rewards_of(step, 0.3)
    if baseline == "group":
        scores = np.array([score.value for score in step.scores]).reshape(-1, SAMPLES)
        for row, mean in zip(rewards, scores.mean(1).repeat(SAMPLES), strict=True):
            row[-1] -= mean
    returns = np.concatenate([to_come(row, gamma) for row in rewards])
    found = np.concatenate(per_row(step, step.experience.advantages))
    np.testing.assert_allclose(found, (returns - returns.mean()) / returns.std(), atol=2e-4)


# What all of them do.


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_weights_move_the_first_ratio_is_1_and_there_is_no_critic(world, algorithm):
    each = world(algorithm)
    before = [weight.clone() for weight in each.parts.policy.model.parameters()]
    first, second = each.run(2)
    moved = zip(each.parts.policy.model.parameters(), before, strict=True)
    assert any(not weight.equal(old) for weight, old in moved)
    start = each.parts.learner.minibatches[0]
    assert start["policy/ratio_min"] == start["policy/ratio_max"] == 1.0
    assert first.experience.values is None
    assert not [key for key in first.metrics if key.startswith("value/")]
    assert (first.index, second.index) == (0, 1)
    assert second.metrics["response/length"] > 0


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_failed_scores_are_learned_from_nowhere(world, algorithm, relative_gap):
    """What a failed completion says, and what it might have been worth, changes no gradient."""

    def rewarding(number: float | None):
        def reward(prompts, completions):
            scores = [Score(float(len(c.tokens)) + 0.3 * i) for i, c in enumerate(completions)]
            failed = FAILED if number is None else Score(number)
            return [failed if i in (1, 6) else score for i, score in enumerate(scores)]

        return reward

    failed = world(algorithm, reward=rewarding(None), still=True)
    (step,) = failed.run()
    assert step.experience.response_mask.any(1).sum() == ROWS - 2
    assert step.experience.advantages[[1, 6]].abs().sum() == 0
    assert step.metrics["reward/failed"] == pytest.approx(2 / ROWS)
    counted = world(algorithm, reward=rewarding(0.0), still=True)
    counted.run()
    assert failed.gradients[0].isfinite().all()
    assert relative_gap(counted.gradients[0], failed.gradients[0]) > 0.01


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("grpo", {"aggregation": "sequence_mean", "kl": {"estimator": "k3"}}),
        ("grpo", {"aggregation": "token_mean", "kl": {"estimator": "k2"}}),
        ("grpo", {"aggregation": "fixed_length", "kl": {"estimator": "full"}}),
        ("grpo", {"aggregation": "sequence_mean", "ratio": "sequence"}),
        ("rloo", {"kl": {"loss_coefficient": 0.1}}),
        ("reinforce", {"entropy_coefficient": 0.1}),
        ("reinforce++", {"entropy_coefficient": 0.1}),
    ],
    ids=str,
)
def test_gradients_do_not_depend_on_the_size_of_micro_batches(
    world, algorithm, options, relative_gap
):
    whole, cut = (
        world(algorithm, still=True, batch={"microbatch_tokens": tokens}, **options)
        for tokens in (10_000, 16)
    )
    whole.run()
    cut.run()
    assert relative_gap(cut.gradients[0], whole.gradients[0]) < 2e-6


def clipped_losses(
    step: RoundStep, change: Tensor, *, of: str, clip: float, clip_high: float, dual_clip: float
) -> list[np.ndarray]:
    """Loss of each token, row by row and case by case; `of` whose ratio is clipped."""
    rows = []
    for log_ratios, advantages in zip(
        per_row(step, change), per_row(step, step.experience.advantages), strict=True
    ):
        ratios = np.exp(
            log_ratios if of == "token" else np.full_like(log_ratios, log_ratios.mean())
        )
        better = -advantages * np.minimum(ratios, 1 + clip_high)
        worse = -advantages * np.clip(ratios, 1 - clip, dual_clip)
        rows.append(np.where(advantages >= 0, better, worse))
    return rows


@pytest.mark.parametrize(
    ("algorithm", "ratio"),
    [("grpo", "token"), ("grpo", "sequence"), ("rloo", "token"), ("reinforce++", "token")],
)
def test_second_step_is_held_back_by_the_clips_of_the_recipe(world, algorithm, ratio):
    """Two epochs: the second reads the policy that one epoch by itself leaves behind.

    The entropy bonus drowns the scores, so that tokens rise and fall whatever their advantage.
    """
    clips = {"clip": 0.02, "clip_high": 0.05, "dual_clip": 1.1}
    options = {
        **clips,
        "entropy_coefficient": 100.0,
        "policy": {"learning_rate": 0.02, "schedule": "constant", "max_gradient_norm": 1e9},
    }
    if algorithm == "grpo":
        options |= {"ratio": ratio, "kl": {"coefficient": 0.0}}
    twice, once = (world(algorithm, epochs=epochs, **options) for epochs in (2, 1))
    twice.run()
    (step,) = once.run()
    with torch.no_grad():
        change = once.parts.policy.logprobs(step.experience) - step.experience.old_logprobs

    def loss(**changed: float) -> float:
        losses = clipped_losses(step, change, of=ratio, **{**clips, **changed})
        if algorithm == "grpo":
            return float(np.mean([row.mean() for row in losses]))
        return float(np.concatenate(losses).mean())

    expected = loss()
    for name, wide in {"clip": 1.0, "clip_high": 1e9, "dual_clip": 1e9}.items():
        assert abs(loss(**{name: wide}) - expected) > 1e-4
    found = twice.parts.learner.minibatches[1]["policy/loss"]
    assert found == pytest.approx(expected, abs=1e-5)


def test_two_equal_groups_teach_nothing_and_are_counted(world):
    def same(prompts, completions):
        return [Score(float(i // SAMPLES % 2) * (i % SAMPLES)) for i in range(len(completions))]

    (step,) = world("grpo", reward=same, still=True).run()
    assert step.metrics["group/no_signal"] == 0.5


# What is GRPO's own.


def test_grpo_holds_the_policy_through_the_loss(world, relative_gap):
    """The KL moves the gradient, by each estimator its own way, and no advantage."""
    found = {}
    estimators = ("k2", "k3", "full")
    for kl in ({"coefficient": 0.0}, *({"coefficient": 0.5, "estimator": k} for k in estimators)):
        each = world("grpo", kl=kl, still=True)
        (step,) = each.run()
        found[kl.get("estimator", "none")] = (each.gradients[0], step.experience.advantages)
    for name in estimators:
        assert found[name][1].equal(found["none"][1])
        others = [found[other][0] for other in ("none", *estimators) if other != name]
        assert min(relative_gap(found[name][0], other) for other in others) > 0.01


def test_dr_grpo_weighs_tokens_alike_and_grpo_completions(world):
    """One step on two prompts: gradients are linear in the weights 1/|y| and 1/L."""
    long, short = [5] * 7 + [2], [6, 2]
    options: dict[str, Any] = {
        "script": lambda prompt, sample: [long, short, short][sample],
        "kl": {"coefficient": 0.0},
        "scale_by_std": False,
        "still": True,
    }
    losses = {}
    for aggregation in ("sequence_mean", "token_mean", "fixed_length"):
        each = world("grpo", aggregation=aggregation, **options)
        (step,) = each.run()
        advantages = np.array([row[0] for row in per_row(step, step.experience.advantages)])
        lengths = step.experience.response_lengths.numpy()
        assert sorted(set(lengths.tolist())) == [2, 8]
        weights = {
            "sequence_mean": 1 / ROWS / lengths,
            "token_mean": np.full(ROWS, 1 / lengths.sum()),
            "fixed_length": np.full(ROWS, 1 / ROWS / 8),
        }[aggregation]
        # At ratio 1 the loss is minus the weighted sum of the advantages.
        losses[aggregation] = -(weights * lengths * advantages).sum()
        found = each.parts.learner.minibatches[0]["policy/loss"]
        assert found == pytest.approx(losses[aggregation], abs=1e-5)
    assert abs(losses["fixed_length"]) > 0.01


def test_completions_near_the_limit_pay_before_they_are_cut_off(world):
    lengths = {0: 4, 1: 7, 2: 9}
    each = world(
        "grpo",
        script=lambda prompt, sample: [5] * (lengths[sample] - 1) + [2],
        reward=lambda prompts, completions: [Score(1.0)] * len(completions),
        truncation={"mode": "soft", "value": -1.0, "buffer": 4},
        still=True,
    )
    (step,) = each.run()
    assert step.experience.truncated.tolist() == [False, False, True] * 4
    # At most 8 tokens, the last 4 of them cost: 4 pay nothing, 7 three quarters, the cut one all.
    assert step.experience.scores[:3].tolist() == pytest.approx([1.0, 0.25, 0.0])
