"""Policy, critic and reward model over transformers' classes."""

from tutelage.models.adapters import Adapter, WholeModel
from tutelage.models.critic import Critic
from tutelage.models.load import (
    disable_dropout,
    forbid_low_precision_weights,
    four_bit,
    freeze,
    load_causal_lm,
    load_sequence_classifier,
    load_tokenizer,
    new_llama,
    save_model,
)
from tutelage.models.policy import Policy
from tutelage.models.reward_model import RewardModel, RewardScale

__all__ = [
    "Adapter",
    "Critic",
    "Policy",
    "RewardModel",
    "RewardScale",
    "WholeModel",
    "disable_dropout",
    "forbid_low_precision_weights",
    "four_bit",
    "freeze",
    "load_causal_lm",
    "load_sequence_classifier",
    "load_tokenizer",
    "new_llama",
    "save_model",
]
