"""Builds what a recipe's `reward` section describes.

RewardConfig ──> {"model": (1, ModelReward), "<function>": (weight, ...), ...} ──> Sum
"""

from collections.abc import Sequence

import torch

from tutelage.config import LengthPenaltyConfig, RewardConfig, RoundsConfig, TrainStage
from tutelage.distributed import Cores
from tutelage.errors import ConfigError
from tutelage.models import RewardModel, RewardScale
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.reward_ensemble import model_reward
from tutelage.pipeline.stages.reward_gate import check_gate
from tutelage.rewards import (
    ConversationReward,
    LengthPenalty,
    Reward,
    Sum,
    load_function,
)

__all__ = ["compose_reward", "load_reward_model"]


def load_reward_model(
    config: RewardConfig, context: StageContext, compute: torch.dtype
) -> RewardModel | None:
    """The frozen reward model, where the recipe names one."""
    if config.model is None:
        return None
    folder = context.resolve(config.model, "model")
    check_gate(config.gate, folder, config.model, context.progress.message)
    model = RewardModel.load(folder, compute=compute)
    return model.eval().requires_grad_(False)


def compose_reward(
    stage: TrainStage,
    model: RewardModel | None,
    cores: Cores | None = None,
    members: Sequence[RewardModel] = (),
) -> tuple[Reward, RoundsConfig]:
    """The composed reward, and the settings with their `auto` values filled in.

    Args:
        stage: of the recipe.
        model: the reward model, whose scale gives `auto` values.
        cores: read texts.
        members: of the ensemble that scores in the model's place.
    """
    config, settings = stage.reward, stage.learner
    scale = model.scale if model is not None else RewardScale()
    parts: dict[str, tuple[float, Reward]] = {}
    if model is not None:
        parts["model"] = (1.0, model_reward(config, model, members, cores))
    for path, weight in config.functions.items():
        function = load_function(path)
        parts[function.name] = (weight, function)
    if config.length is not None:
        parts["length"] = (1.0, _length_penalty(config.length, model))
    truncation = settings.truncation
    if truncation.value == "auto":
        # One sigma below the worst answer of the reference: no length can outbid it.
        truncation = truncation.model_copy(update={"value": scale.floor - 1.0})
    settings = settings.model_copy(update={"truncation": truncation})
    if stage.environment is not None:
        return ConversationReward(Sum(parts) if parts else None, stage.environment.scored), settings
    return Sum(parts), settings


def _length_penalty(config: LengthPenaltyConfig, model: RewardModel | None) -> LengthPenalty:
    """Its `auto` values come from what the reward model was measured to pay for length."""
    coefficient, threshold = config.coefficient, config.threshold
    if "auto" in (coefficient, threshold) and model is None:
        raise ConfigError(
            "reward.length is auto, which reads the reward model's measured slope, but "
            "reward.model is not set: give coefficient and threshold as numbers"
        )
    scale = model.scale if model is not None else RewardScale()
    paid = max(0.0, config.slope_factor * scale.length_slope)
    return LengthPenalty(
        paid if coefficient == "auto" else coefficient,
        round(scale.length_threshold if threshold == "auto" else threshold),
    )
