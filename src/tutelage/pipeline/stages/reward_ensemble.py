"""The reward models that a recipe's `reward` section scores by.

reward.model ──────────────> model
reward.ensemble ──┬── models ──> each of them
                  └── none ────> <stage of reward.model>/members/0, 1, ...
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from tutelage.config import RewardConfig
from tutelage.distributed import Cores
from tutelage.errors import ConfigError
from tutelage.models import RewardModel
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.references import MEMBERS
from tutelage.rewards import EnsembleReward, ModelReward, Reward

__all__ = ["load_members", "member_folders", "model_reward"]


def load_members(
    config: RewardConfig, context: StageContext, compute: torch.dtype
) -> list[RewardModel]:
    """The frozen members of the ensemble that a recipe names; none where it names no ensemble.

    Raises:
        ConfigError: the stage of `reward.model` has trained no members.
    """
    ensemble = config.ensemble
    if ensemble is None or config.model is None:
        return []
    folders = [context.resolve(name, "model") for name in ensemble.models]
    if not folders:
        folders = _members(context.resolve(config.model, "model"))
    if not folders:
        raise ConfigError(
            f"reward.ensemble is set, but {config.model!r} has no folder `members`: set ensemble "
            "in that reward stage, or list reward models in reward.ensemble.models"
        )
    loaded = [RewardModel.load(folder, compute=compute) for folder in folders]
    return [model.eval().requires_grad_(False) for model in loaded]


def member_folders(model: Path) -> list[Path]:
    """The members of the ensemble that a reward model's folder belongs to, or the model alone."""
    return _members(model) or [model]


def _members(model: Path) -> list[Path]:
    folder = model.parent / MEMBERS
    return sorted(folder.iterdir(), key=lambda path: int(path.name)) if folder.is_dir() else []


def model_reward(
    config: RewardConfig, model: RewardModel, members: Sequence[RewardModel], cores: Cores | None
) -> Reward:
    """The score of the one model, or the combined score of the members."""
    if config.ensemble is None:
        return ModelReward(model, clip=config.clip, cores=cores)
    return EnsembleReward(
        [ModelReward(member, clip=config.clip, cores=cores) for member in members],
        combine=config.ensemble.combine,
        penalty=config.ensemble.penalty,
    )
