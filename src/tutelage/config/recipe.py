"""A recipe: the stages of a run, in order, and the files the user supplies."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, StringConstraints, model_validator

from tutelage.config.base import Section
from tutelage.config.stages import Stage

__all__ = ["CheckpointConfig", "Recipe", "TrackersConfig", "referenced_name"]

StageName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


def referenced_name(reference: str) -> str:
    """The first component of a reference: the name of a stage, `inputs`, or of a folder."""
    return reference.split("/", 1)[0]


class CheckpointConfig(Section):
    """How often running stages save what they have done, to go on from there when interrupted."""

    seconds: NonNegativeFloat = 60.0
    """Least time between two checkpoints of a stage. Where one takes long to write, the next waits
    until saving is a twentieth of the time. 0 saves after every step."""
    keep: PositiveInt = 2
    """Checkpoints of a stage that are kept: the newest, and older ones in case it is damaged."""
    grace: NonNegativeFloat = 30.0
    """Seconds that stages have to reach their next checkpoint when the run is interrupted."""


class TrackersConfig(Section):
    """Who gets the metrics beside `metrics.jsonl`. A tracker that fails never stops training."""

    tensorboard: bool | None = None
    """TensorBoard's event files in each stage's folder; unset writes them where it is installed."""
    wandb: bool = False
    """Weights & Biases: files in the run folder for `wandb sync`, unless WANDB_MODE is set."""
    trackio: bool = False
    """trackio: its local database, shown by `trackio show`."""
    project: str = "tutelage"
    """Project under which wandb and trackio file the runs."""


class Recipe(Section):
    """One run, from nothing to a report."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run folder."""
    description: str = ""
    """One paragraph for the report."""
    seed: int = 0
    """Seed from which every stage derives its own."""
    threads: PositiveInt | None = None
    """Torch threads in all, shared by the stages that run side by side; unset takes the cores."""
    parallel: PositiveInt | None = None
    """Stages that may run side by side; unset takes the cores."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When running stages save themselves."""
    memory_check: Literal["refuse", "warn", "off"] = "refuse"
    """What happens to a run whose predicted peak exceeds the available memory; see docs/plan.md."""
    stall_timeout: NonNegativeFloat = 1800.0
    """Seconds without any report after which a stage counts as stuck: its stacks are written to its
    log and the run ends. Must exceed a stage's longest step. 0 waits for ever."""
    trackers: TrackersConfig = TrackersConfig()
    """Who gets the metrics."""
    inputs: dict[StageName, str | tuple[str, ...] | None] = Field(default_factory=dict)
    """Files the user supplies, as `inputs/NAME` in references. null: must be given."""
    stages: Annotated[dict[StageName, Stage], Field(min_length=1)]
    """The stages by name. A stage may refer to those above it."""

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        seen: set[str] = set()
        for name, stage in self.stages.items():
            if name == "inputs":
                raise ValueError("stages.inputs: 'inputs' is reserved for the user's files")
            for reference in stage.references():
                first, _, rest = reference.partition("/")
                if first == "inputs" and rest not in self.inputs:
                    raise ValueError(
                        f"stages.{name} refers to {reference!r}, but inputs has only "
                        f"{sorted(self.inputs)}"
                    )
                if first in self.stages and first not in seen:
                    raise ValueError(
                        f"stages.{name} refers to {reference!r}, which is not above it: "
                        f"move stages.{first} up"
                    )
            seen.add(name)
        return self

    def dependencies(self, name: str) -> tuple[str, ...]:
        """Names of the stages that stage `name` reads, each once, in recipe order."""
        needed = {referenced_name(reference) for reference in self.stages[name].references()}
        return tuple(other for other in self.stages if other in needed)
