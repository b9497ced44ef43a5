"""`tutelage feedback pairs`: which comparisons to ask about, and whom."""

from collections.abc import Callable

from tutelage.cli.stages import stage_command
from tutelage.config import ChooseStage

__all__ = ["pairs_command"]


def pairs_command() -> Callable[..., None]:
    """The stage `choose` as a command; `tutelage feedback` has it as `pairs`."""
    return stage_command(ChooseStage, "feedback pairs")
