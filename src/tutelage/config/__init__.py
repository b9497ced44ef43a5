"""Recipes and their settings: frozen, validated, free of torch."""

from tutelage.config.adapters import LoRAConfig
from tutelage.config.alarms import AlarmsConfig
from tutelage.config.base import Section
from tutelage.config.choose import ChooseStage, CostsConfig, SharesConfig
from tutelage.config.constitution import (
    ConstitutionStage,
    EndpointConfig,
    PreferStage,
    ReviseStage,
)
from tutelage.config.curriculum import CurriculumConfig
from tutelage.config.dpo import DPOConfig, DPOStage
from tutelage.config.ensemble import EnsembleConfig, EnsembleRewardConfig, GateConfig
from tutelage.config.environment import EnvironmentConfig
from tutelage.config.grpo import GRPOConfig, LossKLConfig
from tutelage.config.guard import GuardConfig, MonitorsConfig, SignalConfig
from tutelage.config.humans import HumansConfig
from tutelage.config.judge import (
    GENERAL_RUBRIC,
    JudgeConfig,
    JudgeRewardConfig,
    is_judge_file,
)
from tutelage.config.load import build_section, load_recipe, load_section
from tutelage.config.online_dpo import OnlineDPOConfig
from tutelage.config.ppo import PPOConfig
from tutelage.config.recipe import CheckpointConfig, Recipe, TrackersConfig, referenced_name
from tutelage.config.reinforce import ReinforceConfig, ReinforcePPConfig
from tutelage.config.reward import (
    DeadlinesConfig,
    FormatConfig,
    LengthPenaltyConfig,
    RemoteRewardConfig,
    RepetitionConfig,
    RewardConfig,
)
from tutelage.config.reward_stage import RewardPhase, RewardStage
from tutelage.config.rloo import RLOOConfig
from tutelage.config.rounds import (
    ClippedConfig,
    KLConfig,
    PenaltyConfig,
    PolicyGradientConfig,
    RoundsConfig,
    SamplingConfig,
    TruncationConfig,
)
from tutelage.config.select import SelectStage
from tutelage.config.stage import Reference
from tutelage.config.stages import (
    ArithmeticStage,
    EvaluateStage,
    HelpdeskStage,
    LabelStage,
    ModelShape,
    OpeningsStage,
    PairsStage,
    PretrainStage,
    SampleStage,
    SFTStage,
    SplitStage,
    Stage,
)
from tutelage.config.train import TrainStage
from tutelage.config.training import BatchConfig, OptimizerConfig, PrecisionConfig

__all__ = [
    "GENERAL_RUBRIC",
    "AlarmsConfig",
    "ArithmeticStage",
    "BatchConfig",
    "CheckpointConfig",
    "ChooseStage",
    "ClippedConfig",
    "ConstitutionStage",
    "CostsConfig",
    "CurriculumConfig",
    "DPOConfig",
    "DPOStage",
    "DeadlinesConfig",
    "EndpointConfig",
    "EnsembleConfig",
    "EnsembleRewardConfig",
    "EnvironmentConfig",
    "EvaluateStage",
    "FormatConfig",
    "GRPOConfig",
    "GateConfig",
    "GuardConfig",
    "HelpdeskStage",
    "HumansConfig",
    "JudgeConfig",
    "JudgeRewardConfig",
    "KLConfig",
    "LabelStage",
    "LengthPenaltyConfig",
    "LoRAConfig",
    "LossKLConfig",
    "ModelShape",
    "MonitorsConfig",
    "OnlineDPOConfig",
    "OpeningsStage",
    "OptimizerConfig",
    "PPOConfig",
    "PairsStage",
    "PenaltyConfig",
    "PolicyGradientConfig",
    "PrecisionConfig",
    "PreferStage",
    "PretrainStage",
    "RLOOConfig",
    "Recipe",
    "Reference",
    "ReinforceConfig",
    "ReinforcePPConfig",
    "RemoteRewardConfig",
    "RepetitionConfig",
    "ReviseStage",
    "RewardConfig",
    "RewardPhase",
    "RewardStage",
    "RoundsConfig",
    "SFTStage",
    "SampleStage",
    "SamplingConfig",
    "Section",
    "SelectStage",
    "SharesConfig",
    "SignalConfig",
    "SplitStage",
    "Stage",
    "TrackersConfig",
    "TrainStage",
    "TruncationConfig",
    "build_section",
    "is_judge_file",
    "load_recipe",
    "load_section",
    "referenced_name",
]
