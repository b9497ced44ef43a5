"""The pipeline as Python functions: one for recipes, one per stage.

    import tutelage

    base = tutelage.sft("models/sft", model="models/base", data=["demonstrations.jsonl"])
    rm = tutelage.reward("models/rm", model=base, phases=[{"preferences": ["labels"]}])
    tutelage.train("models/ppo", model=base, reward={"model": rm}, prompts="prompts.jsonl")

Each stage function writes a finished stage folder and returns its path, which other stages
read. Settings are keyword arguments, nested ones mappings, as in a recipe; or one section
object takes the place of all. A folder that holds the same finished stage is kept.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from tutelage.config import (
    ChooseStage,
    DPOStage,
    EvaluateStage,
    LabelStage,
    PreferStage,
    PretrainStage,
    Recipe,
    ReviseStage,
    RewardStage,
    SampleStage,
    SelectStage,
    SFTStage,
    Stage,
    TrainStage,
    build_section,
    load_recipe,
)
from tutelage.errors import ConfigError
from tutelage.pipeline.run import RunResult, run_recipe, run_stage

__all__ = [
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
]

_AnyStage = TypeVar("_AnyStage", bound=Stage)


def run(
    recipe: Recipe | Path | str,
    output: Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] | None = None,
    force: Sequence[str] = (),
    weights_only: Sequence[str] = (),
    time_limit: float | None = None,
    display: bool = True,
) -> RunResult:
    """Runs a recipe: every stage that is not finished, then summary and report.

    Args:
        recipe: A recipe or its file.
        output: The run folder; `runs/<name>` by default.
        overrides: Options as on the command line, for a recipe's file.
        only: Run these stages and what they need; unset runs all.
        force: Run these again although they are finished, and so all that reads them.
        weights_only: Begin these from the weights of their newest checkpoint alone.
        time_limit: Seconds after which running stages save themselves and the run ends.
        display: Show progress and the final table on standard output.

    Raises:
        TutelageError: as `tutelage.pipeline.run_recipe`.
    """
    if isinstance(recipe, Recipe):
        if overrides:
            raise ConfigError("overrides change a recipe's file, found a recipe: change it itself")
        chosen = recipe
    else:
        chosen = load_recipe(recipe, overrides)
    folder = Path(output) if output is not None else Path("runs") / chosen.name
    return run_recipe(
        chosen,
        folder,
        only=only,
        force=force,
        weights_only=weights_only,
        time_limit=time_limit,
        display=display,
    )


def pretrain(
    output: Path | str,
    config: PretrainStage | None = None,
    *,
    display: bool = True,
    **settings: Any,
) -> Path:
    """Trains a tokenizer and a small causal language model; settings as in `PretrainStage`."""
    return _run(PretrainStage, output, config, display, settings)


def sft(
    output: Path | str, config: SFTStage | None = None, *, display: bool = True, **settings: Any
) -> Path:
    """Fine-tunes a model on demonstrations; settings as in `SFTStage`."""
    return _run(SFTStage, output, config, display, settings)


def sample(
    output: Path | str, config: SampleStage | None = None, *, display: bool = True, **settings: Any
) -> Path:
    """Draws completions for prompts; settings as in `SampleStage`."""
    return _run(SampleStage, output, config, display, settings)


def choose(
    output: Path | str, config: ChooseStage | None = None, *, display: bool = True, **settings: Any
) -> Path:
    """Builds comparisons and chooses whom to ask about which; settings as in `ChooseStage`."""
    return _run(ChooseStage, output, config, display, settings)


def label(
    output: Path | str, config: LabelStage | None = None, *, display: bool = True, **settings: Any
) -> Path:
    """Asks an annotator which of two completions is better; settings as in `LabelStage`."""
    return _run(LabelStage, output, config, display, settings)


def revise(
    output: Path | str, config: ReviseStage | None = None, *, display: bool = True, **settings: Any
) -> Path:
    """Has answers criticised and revised under a constitution; settings as in `ReviseStage`."""
    return _run(ReviseStage, output, config, display, settings)


def prefer(
    output: Path | str, config: PreferStage | None = None, *, display: bool = True, **settings: Any
) -> Path:
    """Judges pairs of answers under a constitution; settings as in `PreferStage`."""
    return _run(PreferStage, output, config, display, settings)


def reward(
    output: Path | str, config: RewardStage | None = None, *, display: bool = True, **settings: Any
) -> Path:
    """Trains a reward model on preferences; settings as in `RewardStage`."""
    return _run(RewardStage, output, config, display, settings)


def dpo(
    output: Path | str, config: DPOStage | None = None, *, display: bool = True, **settings: Any
) -> Path:
    """Trains a policy on preferences directly; settings as in `DPOStage`."""
    return _run(DPOStage, output, config, display, settings)


def select(
    output: Path | str, config: SelectStage | None = None, *, display: bool = True, **settings: Any
) -> Path:
    """Keeps each prompt's best completion as a demonstration; settings as in `SelectStage`."""
    return _run(SelectStage, output, config, display, settings)


def train(
    output: Path | str, config: TrainStage | None = None, *, display: bool = True, **settings: Any
) -> Path:
    """Trains a policy against a reward; settings as in `TrainStage`."""
    return _run(TrainStage, output, config, display, settings)


def evaluate(
    output: Path | str,
    config: EvaluateStage | None = None,
    *,
    display: bool = True,
    **settings: Any,
) -> Path:
    """Compares models on held-out prompts; settings as in `EvaluateStage`."""
    return _run(EvaluateStage, output, config, display, settings)


def _run(
    section: type[_AnyStage],
    output: Path | str,
    config: _AnyStage | None,
    display: bool,
    settings: dict[str, Any],
) -> Path:
    if config is not None and settings:
        raise ConfigError(f"found a config and {', '.join(settings)}: give one or the other")
    stage = build_section(section, _plain(settings)) if config is None else config
    return run_stage(stage, Path(output), display=display)


def _plain(value: Any) -> Any:
    """The value with paths as text: a reference is text."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
