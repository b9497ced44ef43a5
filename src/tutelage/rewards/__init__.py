"""Where scores come from."""

from tutelage.rewards.conversation import ConversationReward, answers_of
from tutelage.rewards.ensemble import Combination, EnsembleReward, combine_scores
from tutelage.rewards.function_process import FunctionProcess
from tutelage.rewards.judge import JudgeReward
from tutelage.rewards.parts import FunctionReward, LengthPenalty, ModelReward
from tutelage.rewards.references import AgainstReferences, LengthPenaltyByPrompt, ReferenceAnswers
from tutelage.rewards.remote import RemoteLimits, RemoteReward
from tutelage.rewards.repetition import RepetitionPenalty
from tutelage.rewards.reward import NoReward, Reward, Sum, finite_or_failed, require_scores
from tutelage.rewards.score_cache import ScoreCache

__all__ = [
    "AgainstReferences",
    "Combination",
    "ConversationReward",
    "EnsembleReward",
    "FunctionProcess",
    "FunctionReward",
    "JudgeReward",
    "LengthPenalty",
    "LengthPenaltyByPrompt",
    "ModelReward",
    "NoReward",
    "ReferenceAnswers",
    "RemoteLimits",
    "RemoteReward",
    "RepetitionPenalty",
    "Reward",
    "ScoreCache",
    "Sum",
    "answers_of",
    "combine_scores",
    "finite_or_failed",
    "require_scores",
]
