"""REINFORCE++: PPO without a critic, its advantages normalised over the whole round.

Hu 2025 (arXiv:2501.03262). One difference from PPO: the advantage of a token is what was received
from there on, the KL penalty included, brought to mean 0 and variance 1 over all tokens of the
round; no critic is needed. Unlike GRPO, every completion is divided by the same number, however
much those of its prompt differ. With `baseline: group` each score first loses the mean of its
prompt's completions.

    prompts ──pi_old──> completions ──reward──> scores R(x, y)
    r_t = -beta KL_t + [t = T] R   ──sum of what is to come, normalised over the round──> advantages
    epochs of clipped updates of pi on the frozen experience
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from tutelage.algorithms import (
    KLCoefficient,
    group_advantages,
    kl_estimate,
    normalised_returns,
    shape_rewards,
)
from tutelage.config import ReinforcePPConfig
from tutelage.experience import Experience
from tutelage.generation import Engine, Sampling
from tutelage.models import Policy
from tutelage.records import EncodedPrompt
from tutelage.rewards import Reward
from tutelage.trainers.learner import Learner
from tutelage.trainers.policy_loss import ClippedPolicyLoss, PolicyReader, kl_anchors
from tutelage.trainers.rollout import reward_metrics, rollout_metrics
from tutelage.trainers.round import (
    RoundStep,
    annotate,
    at_temperature,
    present,
    sample_and_score,
    truncated_scores,
    update,
    usable_scores,
)

__all__ = ["reinforce_pp"]


def reinforce_pp(
    policy: Policy,
    reference: Policy,
    engine: Engine,
    reward: Reward,
    learner: Learner,
    prompts: Iterable[Sequence[EncodedPrompt]],
    kl_coefficient: KLCoefficient,
    sampling: Sampling,
    config: ReinforcePPConfig,
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

        # 2. What pi_old and pi_ref thought of every token.
        plan = learner.plan(experience, config.epochs)
        experience = annotate(experience, policy, reference, learner, plan)
        learnable = sampled.allow(experience, learner.guard)

        # 3. r_t = -beta KL_t + [t = T] R; A_t = sum of the rewards from t on, normalised.
        kl = kl_estimate(present(experience.old_logprobs), present(experience.ref_logprobs))
        scores = truncated_scores(experience, config.truncation, config.sampling)
        experience = replace(experience, scores=scores)
        compared = _compared(experience, sampling.samples_per_prompt, config)
        mask = experience.response_mask
        rewards = shape_rewards(compared, kl, mask, kl_coefficient.value, earned=experience.earned)
        advantages = normalised_returns(rewards, mask, gamma=config.gamma)
        experience = replace(experience, advantages=advantages)

        # 4. Epochs of clipped updates on the frozen experience.
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
        metrics |= rollout_metrics(experience, kl)
        kl_coefficient.update(metrics["kl/sequence"], len(experience))
        yield RoundStep.of(index, sampled, experience, metrics)


def _compared(experience: Experience, samples: int, config: ReinforcePPConfig) -> Tensor:
    """The scores, minus the mean of their group where that is asked for."""
    if config.baseline == "none":
        return experience.scores
    groups = usable_scores(experience.scores, experience, samples)
    return group_advantages(groups, scale=False).flatten()
