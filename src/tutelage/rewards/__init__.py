"""Where scores come from."""

from tutelage.rewards.parts import FunctionReward, LengthPenalty, ModelReward, load_function
from tutelage.rewards.reward import Reward, Sum, finite_or_failed, require_scores

__all__ = [
    "FunctionReward",
    "LengthPenalty",
    "ModelReward",
    "Reward",
    "Sum",
    "finite_or_failed",
    "load_function",
    "require_scores",
]
