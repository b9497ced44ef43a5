"""The formulas of RLHF as pure functions of tensors and numbers.

No configuration, model, optimiser, process group or file. Per-token tensors are
`[batch, time]`, position `t` speaks of token `t`, and a boolean mask selects what counts.
`docs/algorithms.md` maps each equation to its function and its test.

    logits ─ token_logprobs ─┬─ kl_estimate ─ shape_rewards ─ gae ─ masked_whiten ─┐
                             └───────────────────────── ppo_policy_loss <──────────┤
    values ──────────────────────────────────────────── ppo_value_loss  <── returns┘

    without a critic: group_advantages (GRPO), leave_one_out (RLOO), subtract_baseline (REINFORCE),
    normalised_returns (REINFORCE++) ──> ppo_policy_loss, gspo_policy_loss, reinforce_loss
"""

from tutelage.algorithms.advantages import gae
from tutelage.algorithms.aggregation import Aggregation, loss_denominator
from tutelage.algorithms.bradley_terry import (
    bradley_terry_loss,
    noisy_label_loss,
    pairwise_accuracy,
    rao_kupper_loss,
)
from tutelage.algorithms.distributions import (
    entropy,
    full_kl,
    logprobs_and_entropy,
    token_logprobs,
)
from tutelage.algorithms.diversity import distinct_ngrams, self_overlap, unique_share
from tutelage.algorithms.groups import group_advantages, leave_one_out
from tutelage.algorithms.importance import importance_metrics, importance_weight
from tutelage.algorithms.kl import KLKind, kl_estimate
from tutelage.algorithms.kl_control import AdaptiveKL, FixedKL, KLCoefficient
from tutelage.algorithms.learnability import draw_probabilities, pass_rate, score_variance
from tutelage.algorithms.loss_output import LossOutput, merge_metrics
from tutelage.algorithms.masked import (
    AllSum,
    last_token,
    masked_mean,
    masked_variance,
    masked_whiten,
    zero_outside,
)
from tutelage.algorithms.moments import Affine, RunningMoments, fit_affine
from tutelage.algorithms.policy import (
    gspo_policy_loss,
    ppo_policy_loss,
    reinforce_loss,
    sequence_ratio,
)
from tutelage.algorithms.preference import DPOKind, dpo_loss, implicit_rewards
from tutelage.algorithms.returns import (
    MovingBaseline,
    normalised_returns,
    reward_to_go,
    subtract_baseline,
)
from tutelage.algorithms.shaping import (
    TruncationKind,
    length_penalty,
    overlong_penalty,
    shape_rewards,
    truncation_score,
)
from tutelage.algorithms.value import explained_variance, ppo_value_loss, value_sigma2

__all__ = [
    "AdaptiveKL",
    "Affine",
    "Aggregation",
    "AllSum",
    "DPOKind",
    "FixedKL",
    "KLCoefficient",
    "KLKind",
    "LossOutput",
    "MovingBaseline",
    "RunningMoments",
    "TruncationKind",
    "bradley_terry_loss",
    "distinct_ngrams",
    "dpo_loss",
    "draw_probabilities",
    "entropy",
    "explained_variance",
    "fit_affine",
    "full_kl",
    "gae",
    "group_advantages",
    "gspo_policy_loss",
    "implicit_rewards",
    "importance_metrics",
    "importance_weight",
    "kl_estimate",
    "last_token",
    "leave_one_out",
    "length_penalty",
    "logprobs_and_entropy",
    "loss_denominator",
    "masked_mean",
    "masked_variance",
    "masked_whiten",
    "merge_metrics",
    "noisy_label_loss",
    "normalised_returns",
    "overlong_penalty",
    "pairwise_accuracy",
    "pass_rate",
    "ppo_policy_loss",
    "ppo_value_loss",
    "rao_kupper_loss",
    "reinforce_loss",
    "reward_to_go",
    "score_variance",
    "self_overlap",
    "sequence_ratio",
    "shape_rewards",
    "subtract_baseline",
    "token_logprobs",
    "truncation_score",
    "unique_share",
    "value_sigma2",
    "zero_outside",
]
