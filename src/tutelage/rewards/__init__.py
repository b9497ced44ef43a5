"""Where scores come from."""

from tutelage.rewards.parts import FunctionReward, LengthPenalty, ModelReward, load_function
from tutelage.rewards.reward import Reward, Sum, require_scores

__all__ = [
    "FunctionReward",
    "LengthPenalty",
    "ModelReward",
    "Reward",
    "Sum",
    "load_function",
    "require_scores",
]
