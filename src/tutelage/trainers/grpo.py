"""Group relative policy optimisation: PPO without a critic.

Shao et al. 2024 (arXiv:2402.03300). Three differences from PPO: the advantage of a completion is
its score among those of the same prompt, the same for all of its tokens; there is no critic; the KL
to the reference is a term of the loss, not of the reward. Options make of it

    Dr. GRPO   Liu et al. 2025 (arXiv:2503.20783)     no division by the group's std, fixed length
    DAPO       Yu et al. 2025 (arXiv:2503.14476)      clip-higher, token mean, overlong completions,
                                                      dynamic sampling
    GSPO       Zheng et al. 2025 (arXiv:2507.18071)   the ratio of the whole completion

    prompt ──pi_old──> n completions ──reward──> scores R_1 ... R_n
    A_i = (R_i - mean R) / std R   for every token of completion i
    epochs of clipped updates of pi on the frozen experience, + beta KL(pi, pi_ref)
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

from torch import Tensor

from tutelage.algorithms import (
    KLKind,
    LossOutput,
    group_advantages,
    gspo_policy_loss,
    kl_estimate,
    loss_denominator,
    masked_mean,
    ppo_policy_loss,
)
from tutelage.config import GRPOConfig
from tutelage.experience import Experience
from tutelage.generation import Engine, Sampling
from tutelage.models import Policy
from tutelage.records import EncodedPrompt
from tutelage.rewards import Reward
from tutelage.trainers.dynamic_sampling import MorePrompts, draw_groups
from tutelage.trainers.learner import Learner
from tutelage.trainers.policy_loss import Anchor, PolicyReader
from tutelage.trainers.rollout import reward_metrics, rollout_metrics
from tutelage.trainers.round import (
    RoundStep,
    annotate,
    at_temperature,
    present,
    spread,
    truncated_scores,
    update,
    usable_scores,
)

__all__ = ["grpo"]


def grpo(
    policy: Policy,
    reference: Policy,
    engine: Engine,
    reward: Reward,
    learner: Learner,
    prompts: Iterable[Sequence[EncodedPrompt]],
    sampling: Sampling,
    config: GRPOConfig,
    *,
    start: int = 0,
    more: MorePrompts | None = None,
) -> Iterator[RoundStep]:
    """Yields one `RoundStep` per batch of prompts, numbered from `start`.

    Logging, evaluation and saving belong to whoever consumes the iterator. Between two rounds all
    state is in the arguments. `more` gives the `extra_batches` of dynamic sampling.

    Raises:
        TrainingError: the first minibatch's ratio is not 1, or too many numbers are not finite.
        RewardError: more than `max_failed_share` of a round could not be scored.
    """
    for index, batch in enumerate(prompts, start):
        # 1. Sample a group y_1 ... y_n ~ pi_old(. | x) of each prompt, and score each: R_i.
        at = at_temperature(index, sampling, config, policy, reference)
        drawn = draw_groups(engine, reward, batch, at, learner, config, more)
        sampled, experience = drawn.sampled, drawn.experience.to(policy.model.device)

        # 2. What pi_old and pi_ref thought of every token.
        plan = learner.plan(experience, config.epochs)
        experience = annotate(experience, policy, reference, learner, plan)
        learnable = sampled.allow(experience, learner.guard)

        # 3. A_i = R_i - mean R, over std R unless that is switched off: one number a completion.
        scores = truncated_scores(experience, config.truncation, config.sampling)
        groups = usable_scores(scores, experience, sampling.samples_per_prompt)
        advantages = group_advantages(groups, scale=config.scale_by_std)
        experience = replace(experience, scores=scores, advantages=spread(advantages, experience))

        # 4. Epochs of clipped updates on the frozen experience; the KL is part of the loss.
        loss = _Loss(policy, reference, config)
        metrics = update(
            learner,
            loss,
            sampled,
            experience,
            plan,
            config,
            (policy.model,),
            learnable=learnable,
            count=loss.count,
        )

        # 5. The sampler gets the new weights.
        engine.load_weights(policy)
        kl = kl_estimate(present(experience.old_logprobs), present(experience.ref_logprobs))
        metrics["kl/coefficient"] = config.kl.coefficient
        metrics |= reward_metrics(drawn.scores, experience, kl, config.kl.coefficient)
        metrics |= rollout_metrics(experience, kl) | drawn.metrics()
        yield RoundStep.of(index, sampled, experience, metrics, drawn.thrown)


class _Loss:
    """Policy, divergence and entropy terms of one micro-batch."""

    def __init__(self, policy: Policy, reference: Policy, config: GRPOConfig) -> None:
        self.config = config
        exact = config.kl.estimator == "full" and config.kl.coefficient > 0
        anchors = [Anchor("kl/reference", config.kl.coefficient, reference)] if exact else []
        self.reader = PolicyReader(policy, anchors, config)
        self.clipped = gspo_policy_loss if config.ratio == "sequence" else ppo_policy_loss

    def count(self, rows: Experience) -> float:
        """What the mean of a minibatch is over: its tokens, or its completions that have any."""
        if self.config.aggregation == "token_mean":
            return rows.denominator
        return float(rows.response_mask.any(1).sum())

    def __call__(self, rows: Experience, denominator: float) -> LossOutput:
        mask, logprobs = rows.response_mask, (reading := self.reader.read(rows)).logprobs
        per_row = self._denominators(rows, denominator)
        policy = self.clipped(
            logprobs,
            present(rows.old_logprobs),
            present(rows.advantages),
            mask,
            clip=self.config.clip,
            clip_high=self.config.clip_high,
            dual_clip=self.config.dual_clip,
            denominator=per_row,
        )
        penalties = self.reader.penalties(reading, per_row.expand_as(logprobs)[mask])
        metrics = {**policy.metrics, **penalties.metrics}
        total = policy.loss + penalties.loss
        if self.config.kl.estimator != "full" and self.config.kl.coefficient:
            kind = cast(KLKind, self.config.kl.estimator)
            tokens = kl_estimate(logprobs, present(rows.ref_logprobs), kind)
            divergence = masked_mean(tokens, mask, per_row)
            total = total + self.config.kl.coefficient * divergence
            metrics["kl/reference"] = divergence.detach()
        return LossOutput(total, metrics)

    def _denominators(self, rows: Experience, total: float) -> Tensor:
        """D of each row; a micro-batch has its minibatch's total, as a rank has that of all."""
        fixed = self.config.aggregation == "fixed_length"
        return loss_denominator(
            rows.response_mask,
            self.config.aggregation,
            max_length=self.config.sampling.max_tokens if fixed else None,
            all_sum=lambda own: own.new_tensor(max(total, 1.0)),
        )
