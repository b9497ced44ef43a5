"""Recipes and their settings: frozen, validated, free of torch."""

from tutelage.config.adapters import LoRAConfig
from tutelage.config.alarms import AlarmsConfig
from tutelage.config.base import Section
from tutelage.config.dpo import DPOConfig, DPOStage, OnlineDPOConfig
from tutelage.config.load import build_section, load_recipe, load_section
from tutelage.config.ppo import KLConfig, PPOConfig, SamplingConfig, TruncationConfig
from tutelage.config.recipe import CheckpointConfig, Recipe, TrackersConfig, referenced_name
from tutelage.config.select import SelectStage
from tutelage.config.stage import Reference
from tutelage.config.stages import (
    EvaluateStage,
    HelpdeskStage,
    LabelStage,
    LengthPenaltyConfig,
    ModelShape,
    OpeningsStage,
    PairsStage,
    PretrainStage,
    RewardConfig,
    RewardPhase,
    RewardStage,
    SampleStage,
    SFTStage,
    SplitStage,
    Stage,
    TrainStage,
)
from tutelage.config.training import BatchConfig, OptimizerConfig, PrecisionConfig

__all__ = [
    "AlarmsConfig",
    "BatchConfig",
    "CheckpointConfig",
    "DPOConfig",
    "DPOStage",
    "EvaluateStage",
    "HelpdeskStage",
    "KLConfig",
    "LabelStage",
    "LengthPenaltyConfig",
    "LoRAConfig",
    "ModelShape",
    "OnlineDPOConfig",
    "OpeningsStage",
    "OptimizerConfig",
    "PPOConfig",
    "PairsStage",
    "PrecisionConfig",
    "PretrainStage",
    "Recipe",
    "Reference",
    "RewardConfig",
    "RewardPhase",
    "RewardStage",
    "SFTStage",
    "SampleStage",
    "SamplingConfig",
    "Section",
    "SelectStage",
    "SplitStage",
    "Stage",
    "TrackersConfig",
    "TrainStage",
    "TruncationConfig",
    "build_section",
    "load_recipe",
    "load_section",
    "referenced_name",
]
