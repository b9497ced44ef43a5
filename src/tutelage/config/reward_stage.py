"""The stage that trains a reward model, or several, on preferences."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from tutelage.config.adapters import LoRAConfig
from tutelage.config.base import Section
from tutelage.config.ensemble import EnsembleConfig
from tutelage.config.stage import Reference, StageSection
from tutelage.config.training import BatchConfig, OptimizerConfig, PrecisionConfig, Share

__all__ = ["RewardPhase", "RewardStage"]

ErrorShare = Annotated[float, Field(ge=0.0, lt=0.5)]


class RewardPhase(Section):
    """One pass of reward-model training over one source of preferences."""

    preferences: tuple[Reference, ...]
    """Stages or files of the `preference` schema."""
    limit: PositiveInt | None = None
    """Use only the first pairs."""
    epochs: PositiveFloat = 1.0
    """Passes over the pairs."""
    weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Annotator, source or kind (human, ai, verifier, synthetic) -> how much its judgements count;
    1 where it is not named. A pair's own `weight` is a factor."""
    errors: dict[str, ErrorShare] = Field(default_factory=dict)
    """The same names -> share of judgements that are the wrong way round, below 0.5. The loss then
    looks for the margins that judgements without errors would have given."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-5, warmup=0.03)


class RewardStage(StageSection):
    """Trains a reward model on preferences with the Bradley-Terry loss."""

    kind: Literal["reward"] = "reward"
    model: Reference
    """The backbone: a causal model of an earlier stage, or any sequence-classification model."""
    phases: Annotated[tuple[RewardPhase, ...], Field(min_length=1)]
    """Trained one after the other: AI labels first, people's last."""
    held_out: Share = 0.1
    """Share of the last phase's prompts that is kept for validation."""
    calibration: Reference | None = None
    """Samples whose scores set mean 0 and variance 1, and whose lengths give the slope."""
    reliability: Literal["none", "agreement", "dawid-skene"] = "none"
    """Weigh judgements by how reliable their annotators are, told from comparisons that several
    have judged: by how often each agrees with the others, or by Dawid and Skene's model. A factor
    beside `weights`; it changes what is trained on, not what is held out."""
    smoothing: Share = 0.0
    """Label smoothing."""
    strength_margin: NonNegativeFloat = 0.0
    """Score by which the better answer has to win, for each unit of the pair's `strength`."""
    tie_threshold: PositiveFloat | None = None
    """Makes ties an outcome of their own (Rao and Kupper): answers whose scores are about this
    close are called equal. Unset, a tie is half a vote for either."""
    centring: NonNegativeFloat = 0.01
    """Weight of (r_a + r_b)^2, which fixes the scores' free constant."""
    max_length: PositiveInt = 512
    """Tokens of prompt and answer; longer texts cannot be scored and are counted."""
    ensemble: EnsembleConfig | None = None
    """Train several reward models."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Cross-validation: as many further trainings, each without another fold of the prompts, whose
    pairs it then scores. They are measured and thrown away."""
    learning_curve: tuple[PositiveInt, ...] = ()
    """Numbers of pairs of the last phase to train on as well, to see what more labels bring."""
    batch: BatchConfig = BatchConfig()
    lora: LoRAConfig | None = None
    """Train adapters and the score head, and leave the backbone's own weights as they are."""
    precision: PrecisionConfig = PrecisionConfig()

    def references(self) -> Iterator[str]:
        """The backbone, the preferences and the calibration samples."""
        yield self.model
        for phase in self.phases:
            yield from phase.preferences
        if self.calibration is not None:
            yield self.calibration

    @property
    def trainings(self) -> int:
        """Models that are trained on all pairs or nearly all: members and folds."""
        members = 1 if self.ensemble is None else self.ensemble.members
        return members + (self.folds or 0)

    @model_validator(mode="after")
    def _one_likelihood(self) -> Self:
        set_ = {
            "smoothing": bool(self.smoothing),
            "strength_margin": bool(self.strength_margin),
            "tie_threshold": self.tie_threshold is not None,
            "errors of a phase": any(phase.errors for phase in self.phases),
        }
        used = [name for name, is_set in set_.items() if is_set]
        if len(used) > 1 and used != ["smoothing", "strength_margin"]:
            raise ValueError(
                f"{' and '.join(used)} are set, which are different models of how people judge: "
                "keep one of them (smoothing and strength_margin go together)"
            )
        return self

    @model_validator(mode="after")
    def _folds_once(self) -> Self:
        if self.folds and self.ensemble is not None and self.ensemble.data == "folds":
            raise ValueError(
                f"folds is {self.folds} and ensemble.data is 'folds', whose members already "
                "measure each other's fold: leave folds out"
            )
        return self
