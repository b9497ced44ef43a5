"""What a plan is made of: models, phases, operations.

peak of a stage = its process + its models for its whole life + the largest of its phases
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tutelage.config.sharing import MOST_SHARES, SMALL_MODEL, SMALLEST_SHARE
from tutelage.pipeline.plan.sizes import ModelSize

__all__ = ["ModelBytes", "Phase", "Place", "StagePlan", "Work"]


@dataclass(frozen=True)
class Place:
    """What a stage runs on."""

    kind: str
    """cpu or cuda."""
    cores: int = 1
    """Of the processor; a GPU counts as one."""

    def sharing(self, weights: int, *, adapted: bool = False) -> int:
        """Cores among which the rows of a model are shared out, as by `distributed.cores_for`.

        Args:
            weights: of the model.
            adapted: adapters are trained, which are switched for all threads at once.
        """
        small = self.kind == "cpu" and weights <= SMALL_MODEL and not adapted
        return self.cores if small else 1

    def decoded_together(self, weights: int, rows: int, batch: int) -> int:
        """Completions in the cache at the same time: a share of them on each core.

        Args:
            weights: of the model.
            rows: completions asked for at once.
            batch: most of them side by side.
        """
        shares = self.shares(weights, rows)
        return min(self.cores, shares) * min(batch, -(-rows // shares))

    def shares(self, weights: int, rows: int) -> int:
        """Parts into which completions are dealt out; a core decodes one at a time."""
        if self.kind != "cpu" or weights > SMALL_MODEL:
            return 1
        return max(1, min(MOST_SHARES, rows // SMALLEST_SHARE))


@dataclass(frozen=True)
class ModelBytes:
    """A model in memory. Gradients come and go: they belong to the phase of the updates."""

    role: str
    source: str
    """Stage, folder or hub name whose weights it has."""
    parameters: int
    """Weights that it does not share with a model listed before it."""
    weights: int
    gradients: int = 0
    optimiser: int = 0
    decoder: int = 0
    """Copies that its completions are decoded from."""

    @property
    def kept(self) -> int:
        """Bytes from the stage's beginning to its end."""
        return self.weights + self.optimiser + self.decoder


@dataclass(frozen=True)
class Phase:
    """Something a stage does, with the bytes that exist only meanwhile."""

    name: str
    parts: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Work:
    """Operations and bytes moved; whichever takes longer decides."""

    flops: float
    bytes: float = 0.0
    compute: str = "float32"
    """Format of the products."""
    steps: float = 0.0
    """Blocks that are run for a token of some rows, however few; each on one core."""

    def times(self, factor: float) -> "Work":
        """As much of it."""
        flops, moved, steps = factor * self.flops, factor * self.bytes, factor * self.steps
        return replace(self, flops=flops, bytes=moved, steps=steps)


@dataclass(frozen=True)
class StagePlan:
    """What one stage needs."""

    name: str
    kind: str
    models: tuple[ModelBytes, ...]
    phases: tuple[Phase, ...]
    unit: str
    """What is done again and again: an update, a batch of completions."""
    work: tuple[Work, ...]
    """Of one unit with rows of the greatest length."""
    units: int | None = None
    """How many at most; None where that depends on data which is not there."""
    size: ModelSize | None = None
    """Of the model that most of the work is for."""
    cores: int = 1
    """That its rows are shared out among."""
    typical: tuple[Work, ...] = ()
    """Of one unit with rows of typical length; that of the longest where nothing else is said."""
    expected: int | None = None
    """Units that are likely; `units` where nothing else is said."""
    process: int = 0
    """Bytes of a process that has imported everything and loaded nothing."""
    notes: tuple[str, ...] = field(default=())

    @property
    def kept(self) -> int:
        """Bytes of the models."""
        return sum(model.kept for model in self.models)

    @property
    def largest(self) -> Phase:
        """The phase that needs the most."""
        return max(self.phases, key=lambda phase: phase.bytes)

    @property
    def peak(self) -> int:
        """Highest bytes at any time."""
        return self.process + self.kept + self.largest.bytes
