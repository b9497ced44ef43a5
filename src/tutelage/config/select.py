"""Settings of best-of-n as a stage."""

from collections.abc import Iterator
from typing import Literal

from pydantic import PositiveInt

from tutelage.config.stage import Reference, StageSection

__all__ = ["SelectStage"]


class SelectStage(StageSection):
    """Keeps the completion of each prompt that a reward model scores best, as a demonstration.

    Supervised fine-tuning on them is best-of-n distillation.
    """

    kind: Literal["select"] = "select"
    samples: Reference
    """The stage or file that holds several completions per prompt."""
    reward: Reference
    """The reward model that chooses."""
    best_of: PositiveInt | None = None
    """Completions of each prompt that are compared, the first ones; unset compares all."""
    limit: PositiveInt | None = None
    """Use only the first prompts."""

    def references(self) -> Iterator[str]:
        """The samples and the reward model."""
        yield self.samples
        yield self.reward
