"""The errors a user of Tutelage can meet, and the exit code of each.

    TutelageError                 exit 1   anything below
    ├── ConfigError               exit 2   a recipe or option is wrong
    ├── DataError                 exit 2   a file or record is wrong
    ├── ModelError                exit 2   a model folder does not hold what the stage needs
    ├── GenerationError           exit 1   the sampler could not produce completions
    ├── RewardError               exit 1   too many completions could not be scored
    ├── JudgeError                exit 1   a judge model cannot be asked
    ├── TrainingError             exit 3   training cannot go on: ratio not 1, non-finite loss
    ├── CheckpointError           exit 4   a saved stage is missing, damaged or locked
    ├── StallError                exit 5   a stage made no progress for too long
    └── MissingExtraError         exit 2   an optional dependency is not installed

Each message says what was found, what was expected and what to do.
"""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "GenerationError",
    "JudgeError",
    "MissingExtraError",
    "ModelError",
    "RewardError",
    "StallError",
    "TrainingError",
    "TutelageError",
]


class TutelageError(Exception):
    """Base of every error that is the user's to read; shown without a traceback."""

    exit_code = 1


class ConfigError(TutelageError, ValueError):
    """A recipe, option or combination of options is not allowed."""

    exit_code = 2


class DataError(TutelageError, ValueError):
    """A data file is missing, malformed or empty; the message names file and line."""

    exit_code = 2


class ModelError(TutelageError, ValueError):
    """A model folder lacks what the stage needs: weights, chat template, pad token."""

    exit_code = 2


class GenerationError(TutelageError):
    """The sampler could not produce completions."""


class RewardError(TutelageError):
    """More completions than allowed could not be scored, or a reward is not usable."""


class JudgeError(TutelageError):
    """A judge model cannot be asked: unreachable, unknown, or it refuses the token."""


class TrainingError(TutelageError):
    """Training cannot go on: the message carries the diagnosis."""

    exit_code = 3


class CheckpointError(TutelageError):
    """A saved stage or run folder is missing, damaged or in use by another process."""

    exit_code = 4


class StallError(TutelageError):
    """A stage made no progress for longer than the recipe allows."""

    exit_code = 5


class MissingExtraError(TutelageError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 2

    def __init__(self, package: str, extra: str) -> None:
        """Names the package that is missing and the extra that brings it."""
        super().__init__(f"{package} is not installed: pip install 'tutelage[{extra}]'")
