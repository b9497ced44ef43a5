"""REINFORCE leave-one-out: PPO without a critic, a completion as one action.

Ahmadian et al. 2024 (arXiv:2402.14740). Two differences from PPO: the baseline of a completion is
the mean reward of the *other* completions of its prompt instead of a critic, and all tokens of a
completion share its advantage. The KL to the reference is part of the reward, summed over the
completion, so the optimum is PPO's. The paper takes one step per round, where no ratio leaves 1;
for more steps the clip of PPO holds them back.

    prompt ──pi_old──> n completions ──reward──> R_i = score_i - beta log(pi_old / pi_ref)(y_i)
    A_i = R_i - mean of the other R_j   for every token of completion i
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tutelage.algorithms import KLCoefficient, kl_estimate, leave_one_out, zero_outside
from tutelage.config import RLOOConfig
from tutelage.generation import Engine, Sampling
from tutelage.models import Policy
from tutelage.records import EncodedPrompt
from tutelage.rewards import Reward
from tutelage.trainers.learner import Learner
from tutelage.trainers.policy_loss import ClippedPolicyLoss, PolicyReader, kl_anchors
from tutelage.trainers.rollout import group_metrics, reward_metrics, rollout_metrics
from tutelage.trainers.round import (
    RoundStep,
    annotate,
    at_temperature,
    present,
    sample_and_score,
    spread,
    truncated_scores,
    update,
    usable_scores,
)

__all__ = ["rloo"]


def rloo(
    policy: Policy,
    reference: Policy,
    engine: Engine,
    reward: Reward,
    learner: Learner,
    prompts: Iterable[Sequence[EncodedPrompt]],
    kl_coefficient: KLCoefficient,
    sampling: Sampling,
    config: RLOOConfig,
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
        # 1. Sample y_1 ... y_n ~ pi_old(. | x) of each prompt, and score each.
        drawn = at_temperature(index, sampling, config, policy, reference)
        sampled, experience = sample_and_score(engine, reward, batch, drawn, learner, config)
        experience = experience.to(policy.model.device)

        # 2. What pi_old and pi_ref thought of every token.
        plan = learner.plan(experience, config.epochs)
        experience = annotate(experience, policy, reference, learner, plan)
        learnable = sampled.allow(experience, learner.guard)

        # 3. R_i = score_i - beta sum_t KL_t; A_i = R_i minus the mean of the others.
        kl = kl_estimate(present(experience.old_logprobs), present(experience.ref_logprobs))
        scores = truncated_scores(experience, config.truncation, config.sampling)
        penalty = kl_coefficient.value * zero_outside(kl, experience.response_mask).sum(1)
        groups = usable_scores(scores - penalty, experience, sampling.samples_per_prompt)
        advantages = spread(leave_one_out(groups), experience)
        experience = replace(experience, scores=scores, advantages=advantages)

        # 4. The policy gradient; with several steps, clipped as in PPO.
        reader = PolicyReader(policy, kl_anchors(policy, reference, config.kl), config)
        metrics = update(
            learner,
            ClippedPolicyLoss(reader, config),
            sampled,
            experience,
            plan,
            config,
            (policy.model,),
            learnable=learnable,
        )

        # 5. The sampler gets the new weights; beta follows the measured KL.
        engine.load_weights(policy)
        metrics["kl/coefficient"] = kl_coefficient.value
        metrics |= reward_metrics(sampled.scores, experience, kl, kl_coefficient.value)
        metrics |= rollout_metrics(experience, kl) | group_metrics(groups)
        kl_coefficient.update(metrics["kl/sequence"], len(experience))
        yield RoundStep.of(index, sampled, experience, metrics)
