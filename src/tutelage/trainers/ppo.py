"""Proximal policy optimisation of a language model.

Schulman et al. 2017 (arXiv:1707.06347) for the update, Ziegler et al. 2019
(arXiv:1909.08593) for the per-token KL in the reward and the adaptive coefficient.

    prompts ──pi_old──> completions ──reward──> scores R(x, y)
    r_t = -beta KL_t + [t = T] R   ──GAE with V──> advantages, returns
    epochs of clipped updates of pi and V on the frozen experience
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tutelage.algorithms import (
    KLCoefficient,
    LossOutput,
    gae,
    kl_estimate,
    masked_whiten,
    ppo_policy_loss,
    ppo_value_loss,
    shape_rewards,
    value_sigma2,
)
from tutelage.config import PPOConfig
from tutelage.experience import Experience
from tutelage.generation import Engine, Sampling
from tutelage.models import Critic, Policy
from tutelage.records import EncodedPrompt
from tutelage.rewards import Reward
from tutelage.trainers.learner import Learner
from tutelage.trainers.policy_loss import PolicyReader, kl_anchors
from tutelage.trainers.rollout import reward_metrics, rollout_metrics
from tutelage.trainers.round import (
    RoundStep,
    annotate,
    at_temperature,
    present,
    sample_and_score,
    truncated_scores,
    update,
)

__all__ = ["ppo"]


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
) -> Iterator[RoundStep]:
    """Yields one `RoundStep` per batch of prompts, numbered from `start`.

    Logging, evaluation and saving belong to whoever consumes the iterator. Between two rounds all
    state is in the arguments.

    Raises:
        TrainingError: the first minibatch's ratio is not 1, or too many numbers are not finite.
        RewardError: more than `max_failed_share` of a round could not be scored.
    """
    for index, batch in enumerate(prompts, start):
        # 1. Sample y ~ pi_old(. | x) and score the whole completion: R(x, y).
        drawn = at_temperature(index, sampling, config, policy, reference)
        sampled, experience = sample_and_score(engine, reward, batch, drawn, learner, config)
        experience = experience.to(policy.model.device)

        # 2. What pi_old, pi_ref and V thought of every token.
        plan = learner.plan(experience, config.epochs)
        experience = annotate(experience, policy, reference, learner, plan, critic)
        learnable = sampled.allow(experience, learner.guard)

        # 3. r_t = -beta KL_t + [t = T] R; advantages by GAE, whitened over the round.
        kl = kl_estimate(present(experience.old_logprobs), present(experience.ref_logprobs))
        experience = _assign_credit(experience, kl, kl_coefficient.value, critic, config)

        # 4. Epochs of clipped updates on the frozen experience.
        loss = _Loss(policy, reference, critic, experience, config)
        warming_up = index < config.critic_warmup
        metrics = update(
            learner,
            loss,
            sampled,
            experience,
            plan,
            config,
            (policy.model, critic),
            learnable=learnable,
            train=["value"] if warming_up else None,
        )

        # 5. The sampler gets the new weights; beta follows the measured KL.
        engine.load_weights(policy)
        metrics["kl/coefficient"] = kl_coefficient.value
        metrics |= reward_metrics(sampled.scores, experience, kl, kl_coefficient.value)
        metrics |= rollout_metrics(experience, kl)
        kl_coefficient.update(metrics["kl/sequence"], len(experience))
        yield RoundStep.of(index, sampled, experience, metrics)


def _assign_credit(
    experience: Experience, kl: Tensor, beta: float, critic: Critic, config: PPOConfig
) -> Experience:
    """Adds advantages for the policy and returns for the critic, each with its own lambda.

    Scores become what truncation makes of them.
    """
    mask, values = experience.response_mask, present(experience.values)
    scores, bootstrap = truncated_scores(experience, config.truncation, config.sampling), None
    if config.truncation.mode == "bootstrap":
        with torch.no_grad():
            final = critic.final_values(experience)
        bootstrap = torch.where(experience.truncated, final, 0.0)
    rewards = shape_rewards(scores, kl, mask, beta, earned=experience.earned)
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
        self.reader = PolicyReader(policy, kl_anchors(policy, reference, config.kl), config)
        self.sigma2 = None
        if config.value_normalise:
            self.sigma2 = value_sigma2(
                present(experience.values), present(experience.returns), experience.response_mask
            )

    def __call__(self, rows: Experience, denominator: float) -> LossOutput:
        states = self.policy.states(rows)
        reading = self.reader.read(rows, states)
        policy = ppo_policy_loss(
            reading.logprobs,
            present(rows.old_logprobs),
            present(rows.advantages),
            rows.response_mask,
            clip=self.config.clip,
            clip_high=self.config.clip_high,
            dual_clip=self.config.dual_clip,
            denominator=denominator,
        )
        value = ppo_value_loss(
            self.critic.values(rows, states),
            present(rows.values),
            present(rows.returns),
            rows.response_mask,
            clip=self.config.value_clip,
            normalize=self.config.value_normalise,
            sigma2=self.sigma2,
            denominator=denominator,
        )
        penalties = self.reader.penalties(reading, denominator)
        total = policy.loss + self.config.value_coefficient * value.loss + penalties.loss
        return LossOutput(total, {**policy.metrics, **value.metrics, **penalties.metrics})
