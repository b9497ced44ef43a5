"""Policy, critic and reward model over transformers' classes."""

from tutelage.models.adapter_critic import AdapterCritic
from tutelage.models.adapters import Adapter, WholeModel
from tutelage.models.checkpointing import recompute_activations, training_mode
from tutelage.models.critic import Critic, SharedCritic
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
    "AdapterCritic",
    "Critic",
    "Policy",
    "RewardModel",
    "RewardScale",
    "SharedCritic",
    "WholeModel",
    "disable_dropout",
    "forbid_low_precision_weights",
    "four_bit",
    "freeze",
    "load_causal_lm",
    "load_sequence_classifier",
    "load_tokenizer",
    "new_llama",
    "recompute_activations",
    "save_model",
    "training_mode",
]
