"""Where scores come from."""

from tutelage.rewards.conversation import ConversationReward, answers_of
from tutelage.rewards.ensemble import Combination, EnsembleReward, combine_scores
from tutelage.rewards.parts import FunctionReward, LengthPenalty, ModelReward, load_function
from tutelage.rewards.reward import Reward, Sum, finite_or_failed, require_scores

__all__ = [
    "Combination",
    "ConversationReward",
    "EnsembleReward",
    "FunctionReward",
    "LengthPenalty",
    "ModelReward",
    "Reward",
    "Sum",
    "answers_of",
    "combine_scores",
    "finite_or_failed",
    "load_function",
    "require_scores",
]
