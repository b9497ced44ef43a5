"""Where scores come from."""

from tutelage.rewards.conversation import ConversationReward, answers_of
from tutelage.rewards.function_process import FunctionProcess
from tutelage.rewards.parts import FunctionReward, LengthPenalty, ModelReward
from tutelage.rewards.references import AgainstReferences, LengthPenaltyByPrompt, ReferenceAnswers
from tutelage.rewards.remote import RemoteLimits, RemoteReward
from tutelage.rewards.repetition import RepetitionPenalty
from tutelage.rewards.reward import Reward, Sum, finite_or_failed, require_scores
from tutelage.rewards.score_cache import ScoreCache

__all__ = [
    "AgainstReferences",
    "ConversationReward",
    "FunctionProcess",
    "FunctionReward",
    "LengthPenalty",
    "LengthPenaltyByPrompt",
    "ModelReward",
    "ReferenceAnswers",
    "RemoteLimits",
    "RemoteReward",
    "RepetitionPenalty",
    "Reward",
    "ScoreCache",
    "Sum",
    "answers_of",
    "finite_or_failed",
    "require_scores",
]
