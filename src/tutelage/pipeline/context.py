"""What a stage function receives: where to write, what to read, how to report.

def run(config: SFTStage, context: StageContext) -> dict[str, float]:
    model = context.resolve(config.model, "model")
    rows = context.resolve_all(config.data, "sft.jsonl")
    ...
    with context.checkpoints.track(model=model, ...) as checkpoints:
        ...
        context.metrics.log(step, {"sft/loss": loss})
        context.progress.step(step + 1, total, {"loss": loss})
        checkpoints.boundary(step + 1)
    save(model, context.folder / "model")
    return {"loss": loss}
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.pipeline.checkpoints import Checkpoints, NullCheckpoints
from tutelage.pipeline.references import References
from tutelage.tracking.metrics import MetricWriter
from tutelage.tracking.progress import Progress

__all__ = ["StageContext"]


@dataclass(frozen=True)
class StageContext:
    """The world of one running stage."""

    name: str
    folder: Path
    """Where the stage writes; published under its final name when the stage succeeds."""
    seed: int
    threads: int
    """Torch threads this stage may use; already set when the stage starts."""
    progress: Progress
    metrics: MetricWriter
    references: References
    checkpoints: Checkpoints = field(default_factory=NullCheckpoints)
    """What the stage goes on from, and saves itself to, when it is interrupted."""
    evidence: Path | None = None
    """Where the stage writes what explains a failure; it stays when the stage fails."""
    replies: Path | None = None
    """File that keeps what judges and writers have replied, which may have cost money: it stays
    when the stage fails or its settings change. Without it they are asked again."""
    cores: int = 1
    """Cores of all stages together. Threads with work of their own may be as many, whatever runs
    beside the stage; threads that wait for each other in every operation may not."""

    def resolve(self, reference: str, default: str) -> Path:
        """The file or folder a reference names; see `References.resolve`."""
        return self.references.resolve(reference, default)

    def resolve_all(self, references: Sequence[str], default: str) -> list[Path]:
        """The paths of several references in order; an input may stand for several files."""
        return self.references.resolve_all(references, default)
