"""Aligns language models with human and AI feedback.

The names below are the public Python API; each is imported when it is first used, so that
`import tutelage` is fast and needs no torch.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.config import Recipe, load_recipe
    from tutelage.environment import Environment, Reply
    from tutelage.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        GenerationError,
        MissingExtraError,
        ModelError,
        RewardError,
        TrainingError,
        TutelageError,
    )
    from tutelage.pipeline.api import (
        choose,
        dpo,
        evaluate,
        label,
        prefer,
        pretrain,
        revise,
        reward,
        run,
        sample,
        select,
        sft,
        train,
    )
    from tutelage.pipeline.run import RunResult
    from tutelage.records import (
        Comparison,
        Completion,
        Demonstration,
        Message,
        Preference,
        Prompt,
        Score,
        ScoreStatus,
        StopReason,
        Turn,
    )

__all__ = [
    "CheckpointError",
    "Comparison",
    "Completion",
    "ConfigError",
    "DataError",
    "Demonstration",
    "Environment",
    "GenerationError",
    "Message",
    "MissingExtraError",
    "ModelError",
    "Preference",
    "Prompt",
    "Recipe",
    "Reply",
    "RewardError",
    "RunResult",
    "Score",
    "ScoreStatus",
    "StopReason",
    "TrainingError",
    "Turn",
    "TutelageError",
    "__version__",
    "choose",
    "dpo",
    "evaluate",
    "label",
    "load_recipe",
    "prefer",
    "pretrain",
    "revise",
    "reward",
    "run",
    "sample",
    "select",
    "sft",
    "train",
]

_HOMES = {
    "tutelage.config": ("Recipe", "load_recipe"),
    "tutelage.environment": ("Environment", "Reply"),
    "tutelage.errors": (
        "CheckpointError",
        "ConfigError",
        "DataError",
        "GenerationError",
        "MissingExtraError",
        "ModelError",
        "RewardError",
        "TrainingError",
        "TutelageError",
    ),
    "tutelage.pipeline.api": (
        "choose",
        "dpo",
        "evaluate",
        "label",
        "prefer",
        "pretrain",
        "revise",
        "reward",
        "run",
        "sample",
        "select",
        "sft",
        "train",
    ),
    "tutelage.pipeline.run": ("RunResult",),
    "tutelage.records": (
        "Comparison",
        "Completion",
        "Demonstration",
        "Message",
        "Preference",
        "Prompt",
        "Score",
        "ScoreStatus",
        "StopReason",
        "Turn",
    ),
}


def __getattr__(name: str) -> Any:
    """Imports a public name from its home when it is first asked for."""
    if name == "__version__":
        value: Any = metadata.version("tutelage")
    else:
        home = next((home for home, names in _HOMES.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module 'tutelage' has no attribute {name!r}")
        value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
