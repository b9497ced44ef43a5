"""REINFORCE: the plain policy gradient, PPO without critic, ratio and clip.

Williams 1992. Three differences from PPO: the advantage of a token is what was received from there
on, minus a baseline that is one number for all; there is no critic; one step is taken on each
round, because without a ratio the samples must be the present policy's.

    prompts ──pi──> completions ──reward──> scores R(x, y)
    r_t = -beta KL_t + [t = T] R   ──sum of what is to come, minus b──> advantages
    one step along A_t grad log pi(y_t)
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from tutelage.algorithms import (
    KLCoefficient,
    LossOutput,
    MovingBaseline,
    kl_estimate,
    masked_mean,
    reinforce_loss,
    reward_to_go,
    shape_rewards,
    subtract_baseline,
)
from tutelage.config import ReinforceConfig
from tutelage.experience import Experience
from tutelage.generation import Engine, Sampling
from tutelage.models import Policy
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

__all__ = ["reinforce"]


def reinforce(
    policy: Policy,
    reference: Policy,
    engine: Engine,
    reward: Reward,
    learner: Learner,
    prompts: Iterable[Sequence[EncodedPrompt]],
    kl_coefficient: KLCoefficient,
    baseline: MovingBaseline,
    sampling: Sampling,
    config: ReinforceConfig,
    *,
    start: int = 0,
) -> Iterator[RoundStep]:
    """Yields one `RoundStep` per batch of prompts, numbered from `start`.

    Logging, evaluation and saving belong to whoever consumes the iterator. Between two rounds all
    state is in the arguments.

    Raises:
        TrainingError: the ratio is not 1, or too many numbers are not finite.
        RewardError: more than `max_failed_share` of a round could not be scored.
    """
    for index, batch in enumerate(prompts, start):
        # 1. Sample y ~ pi(. | x) and score the whole completion: R(x, y).
        drawn = at_temperature(index, sampling, config, policy, reference)
        sampled, experience = sample_and_score(engine, reward, batch, drawn, learner, config)
        experience = experience.to(policy.model.device)

        # 2. What pi and pi_ref thought of every token.
        plan = learner.plan(experience)
        experience = annotate(experience, policy, reference, learner, plan)
        learnable = sampled.allow(experience, learner.guard)

        # 3. r_t = -beta KL_t + [t = T] R; G_t = sum of the rewards from t on; A_t = G_t - b.
        kl = kl_estimate(present(experience.old_logprobs), present(experience.ref_logprobs))
        scores = truncated_scores(experience, config.truncation, config.sampling)
        mask = experience.response_mask
        rewards = shape_rewards(scores, kl, mask, kl_coefficient.value, earned=experience.earned)
        returns = reward_to_go(rewards, mask, gamma=config.gamma)
        subtracted = _baseline(returns, mask, baseline, config)
        advantages = subtract_baseline(returns, mask, subtracted)
        experience = replace(experience, scores=scores, advantages=advantages)

        # 4. One step of the policy gradient.
        loss = _Loss(PolicyReader(policy, kl_anchors(policy, reference, config.kl), config))
        metrics = update(
            learner,
            loss,
            sampled,
            experience,
            plan,
            config,
            (policy.model,),
            learnable=learnable,
        )

        # 5. The sampler gets the new weights; baseline and beta follow what was measured.
        engine.load_weights(policy)
        if learnable:
            baseline.update(returns, mask)
        metrics |= {"kl/coefficient": kl_coefficient.value, "advantage/baseline": subtracted}
        metrics |= reward_metrics(sampled.scores, experience, kl, kl_coefficient.value)
        metrics |= rollout_metrics(experience, kl)
        kl_coefficient.update(metrics["kl/sequence"], len(experience))
        yield RoundStep.of(index, sampled, experience, metrics)


def _baseline(
    returns: Tensor, mask: Tensor, moving: MovingBaseline, config: ReinforceConfig
) -> float:
    match config.baseline:
        case "moving":
            return moving.value
        case "batch":
            return float(masked_mean(returns, mask))
    return 0.0


class _Loss:
    """Policy gradient and penalties of one micro-batch."""

    def __init__(self, reader: PolicyReader) -> None:
        self.reader = reader

    def __call__(self, rows: Experience, denominator: float) -> LossOutput:
        reading = self.reader.read(rows)
        policy = reinforce_loss(
            reading.logprobs,
            present(rows.old_logprobs),
            present(rows.advantages),
            rows.response_mask,
            denominator=denominator,
        )
        penalties = self.reader.penalties(reading, denominator)
        return LossOutput(policy.loss + penalties.loss, {**policy.metrics, **penalties.metrics})
