"""Proximal policy optimisation of a language model.

Schulman et al. 2017 (arXiv:1707.06347) for the update, Ziegler et al. 2019
(arXiv:1909.08593) for the per-token KL in the reward and the adaptive coefficient.

    prompts ──pi_old──> completions ──reward──> scores R(x, y)
    r_t = -beta KL_t + [t = T] R   ──GAE with V──> advantages, returns
    epochs of clipped updates of pi and V on the frozen experience
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from tutelage.algorithms import (
    KLCoefficient,
    LossOutput,
    entropy,
    full_kl,
    gae,
    kl_estimate,
    masked_whiten,
    ppo_policy_loss,
    ppo_value_loss,
    shape_rewards,
    token_logprobs,
    truncation_score,
    value_sigma2,
)
from tutelage.config import PPOConfig
from tutelage.experience import Experience
from tutelage.generation import Engine, Sampling
from tutelage.models import Critic, Policy, training_mode
from tutelage.models.causal import scatter
from tutelage.records import Completion, EncodedPrompt, Score
from tutelage.rewards import Reward, finite_or_failed, require_scores
from tutelage.trainers.evidence import SampledRows, sample
from tutelage.trainers.learner import Learner, Plan
from tutelage.trainers.rollout import (
    agreement_guard,
    collate,
    reward_metrics,
    rollout_metrics,
)

__all__ = ["PPOStep", "ppo"]


@dataclass(frozen=True)
class PPOStep:
    """One round: what was sampled, how it was scored, what the update did."""

    index: int
    prompts: Sequence[EncodedPrompt]
    """The prompt of each completion."""
    completions: Sequence[Completion]
    scores: Sequence[Score]
    experience: Experience
    metrics: Mapping[str, float]


def ppo(
    policy: Policy,
    reference: Policy,
    critic: Critic,
    engine: Engine,
    reward: Reward,
    learner: Learner,
    prompts: Iterable[Sequence[EncodedPrompt]],
    kl_coefficient: KLCoefficient,
    sampling: Sampling,
    config: PPOConfig,
    *,
    start: int = 0,
) -> Iterator[PPOStep]:
    """Yields one `PPOStep` per batch of prompts, numbered from `start`.

    Logging, evaluation and saving belong to whoever consumes the iterator. Between two rounds all
    state is in the arguments.

    Raises:
        TrainingError: the first minibatch's ratio is not 1, or too many numbers are not finite.
        RewardError: more than `max_failed_share` of a round could not be scored.
    """
    for index, batch in enumerate(prompts, start):
        # 1. Sample y ~ pi_old(. | x) and score the whole completion: R(x, y).
        completions = sample(engine, batch, sampling, learner.guard)
        repeated = [prompt for prompt in batch for _ in range(sampling.samples_per_prompt)]
        scores = finite_or_failed(reward([prompt.prompt for prompt in repeated], completions))
        sampled = SampledRows(repeated, completions, scores)
        sampled.record_scores(learner.guard)
        require_scores(scores, config.max_failed_share)
        experience = collate(repeated, completions, scores, config.truncation.mode)
        experience = experience.to(policy.model.device)

        # 2. What pi_old, pi_ref and V thought of every token.
        plan = learner.plan(experience, config.epochs)
        experience = _annotate(experience, policy, reference, critic, learner, plan)
        learnable = sampled.allow(experience, learner.guard)

        # 3. r_t = -beta KL_t + [t = T] R; advantages by GAE, whitened over the round.
        kl = kl_estimate(_present(experience.old_logprobs), _present(experience.ref_logprobs))
        experience = _assign_credit(experience, kl, kl_coefficient.value, critic, config)

        # 4. Epochs of clipped updates on the frozen experience.
        loss = _Loss(policy, reference, critic, experience, config)
        check = agreement_guard(experience, config.precision.compute)
        warming_up = index < config.critic_warmup
        with training_mode(policy.model, critic):
            metrics = learner.fit(
                loss,
                experience,
                plan if learnable else [],
                train=["value"] if warming_up else None,
                stop=lambda seen: _moved_too_far(seen, config.target_kl),
                observe=check,
                describe=partial(sampled.describe, experience=experience),
            )

        # 5. The sampler gets the new weights; beta follows the measured KL.
        engine.load_weights(policy)
        if not learnable:
            metrics |= {"train/skipped": 1.0, "train/not_finite": 1.0}
        metrics["kl/coefficient"] = kl_coefficient.value
        metrics |= reward_metrics(scores, experience, kl, kl_coefficient.value)
        metrics |= rollout_metrics(experience, kl)
        kl_coefficient.update(metrics["kl/sequence"], len(experience))
        yield PPOStep(index, repeated, completions, scores, experience, metrics)


def _present(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "the experience has not been annotated yet"
    return tensor


def _annotate(
    experience: Experience,
    policy: Policy,
    reference: Policy,
    critic: Critic,
    learner: Learner,
    plan: Plan,
) -> Experience:
    """Adds old and reference log-probabilities and values, in the first epoch's shapes.

    What frozen blocks make of the tokens comes first, and serves all three and all epochs.
    """
    if policy.frozen_layers:
        experience = replace(experience, **learner.evaluate(policy.lower_states, experience, plan))

    def thoughts(rows: Experience) -> dict[str, Tensor]:
        states = policy.states(rows)
        return {
            "old_logprobs": policy.logprobs(rows, states),
            "ref_logprobs": reference.logprobs(rows),
            "values": critic.values(rows, states),
        }

    return replace(experience, **learner.evaluate(thoughts, experience, plan))


def _assign_credit(
    experience: Experience, kl: Tensor, beta: float, critic: Critic, config: PPOConfig
) -> Experience:
    """Adds advantages for the policy and returns for the critic, each with its own lambda.

    Scores become what truncation makes of them.
    """
    mask, values = experience.response_mask, _present(experience.values)
    scores, bootstrap = experience.scores, None
    amount = config.truncation.value
    assert amount != "auto", "filled in from the reward model before training starts"
    match config.truncation.mode:
        case "replace":
            scores = truncation_score(scores, experience.truncated, kind="replace", value=amount)
        case "penalise":
            scores = truncation_score(scores, experience.truncated, kind="subtract", value=-amount)
        case "bootstrap":
            with torch.no_grad():
                final = critic.final_values(experience)
            bootstrap = torch.where(experience.truncated, final, 0.0)
    rewards = shape_rewards(scores, kl, mask, beta)
    advantages, returns = gae(
        rewards, values, mask, gamma=config.gamma, lam=config.lam, bootstrap=bootstrap
    )
    if config.value_lam != config.lam:
        _, returns = gae(
            rewards, values, mask, gamma=config.gamma, lam=config.value_lam, bootstrap=bootstrap
        )
    if config.whiten_advantages:
        advantages = masked_whiten(advantages, mask)
    return replace(experience, scores=scores, advantages=advantages, returns=returns)


@dataclass(frozen=True)
class _Anchor:
    """A policy that the loss holds the trained one near to, by the KL over the vocabulary."""

    name: str
    coefficient: float
    policy: Policy


class _Loss:
    """Policy, value and penalty terms of one micro-batch."""

    def __init__(
        self,
        policy: Policy,
        reference: Policy,
        critic: Critic,
        experience: Experience,
        config: PPOConfig,
    ) -> None:
        self.policy, self.critic, self.config = policy, critic, config
        self.anchors: list[_Anchor] = []
        if config.kl.loss_coefficient:
            self.anchors.append(_Anchor("kl/reference", config.kl.loss_coefficient, reference))
        if config.kl.old_policy_coefficient:
            # Copied before the first update, so it stays the policy that sampled.
            old = policy.frozen_copy()
            self.anchors.append(_Anchor("kl/old_policy", config.kl.old_policy_coefficient, old))
        self.sigma2 = None
        if config.value_normalise:
            self.sigma2 = value_sigma2(
                _present(experience.values),
                _present(experience.returns),
                experience.response_mask,
            )

    def __call__(self, rows: Experience, denominator: float) -> LossOutput:
        states = self.policy.states(rows)
        logprobs, entropies, divergences = self._read(states, rows)
        policy = ppo_policy_loss(
            scatter(logprobs, rows.response_mask),
            _present(rows.old_logprobs),
            _present(rows.advantages),
            rows.response_mask,
            clip=self.config.clip,
            clip_high=self.config.clip_high,
            dual_clip=self.config.dual_clip,
            denominator=denominator,
        )
        value = ppo_value_loss(
            self.critic.values(rows, states),
            _present(rows.values),
            _present(rows.returns),
            rows.response_mask,
            clip=self.config.value_clip,
            normalize=self.config.value_normalise,
            sigma2=self.sigma2,
            denominator=denominator,
        )
        penalties = self._penalties(entropies, divergences, denominator)
        total = policy.loss + self.config.value_coefficient * value.loss + penalties.loss
        return LossOutput(total, {**policy.metrics, **value.metrics, **penalties.metrics})

    def _read(self, states: Tensor, rows: Experience) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """log pi of each response token, the entropy, and KL(pi || other) for each anchor."""
        with torch.no_grad():
            anchored = [anchor.policy.states(rows) for anchor in self.anchors]

        def read(logits: Tensor, chosen: Tensor, *anchored: Tensor) -> tuple[Tensor, ...]:
            divergences = []
            for anchor, others in zip(self.anchors, anchored, strict=True):
                with torch.no_grad():
                    other_logits = anchor.policy.logits(others)
                divergences.append(full_kl(logits, other_logits))
            picked = token_logprobs(logits, chosen)
            uncertain = logits if self.config.entropy_coefficient else logits.detach()
            return picked, entropy(uncertain), *divergences

        chosen = rows.tokens[rows.response_mask]
        found = self.policy.read(read, states, chosen, *anchored)
        return found[0], found[1], found[2:]

    def _penalties(
        self, entropies: Tensor, divergences: Sequence[Tensor], denominator: float
    ) -> LossOutput:
        """-c H(pi) + c_ref KL(pi || pi_ref) + c_old KL(pi || pi_old), per token."""
        mean_entropy = entropies.sum() / max(denominator, 1.0)
        total = -self.config.entropy_coefficient * mean_entropy
        metrics = {"policy/entropy": mean_entropy.detach()}
        for anchor, tokens in zip(self.anchors, divergences, strict=True):
            divergence = tokens.sum() / max(denominator, 1.0)
            total = total + anchor.coefficient * divergence
            metrics[anchor.name] = divergence.detach()
        return LossOutput(total, metrics)


def _moved_too_far(metrics: Mapping[str, float], target: float | None) -> bool:
    """Schulman's approximate KL to the sampling policy exceeds 1.5 times its target."""
    return target is not None and metrics["policy/approx_kl_k3"] > 1.5 * target
