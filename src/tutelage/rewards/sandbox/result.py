"""How a run in the sandbox ended."""

from dataclasses import dataclass
from enum import StrEnum

from tutelage.errors import RewardError

__all__ = ["SandboxResult", "SandboxStatus", "SandboxUnavailable"]


class SandboxStatus(StrEnum):
    """Why a run is over. All but `ERROR` are the program's own doing."""

    EXITED = "exited"
    """It ended by itself; the exit code is its own."""
    SIGNALLED = "signalled"
    """A signal ended it, a crash of the interpreter for example."""
    CPU_LIMIT = "cpu_limit"
    WALL_LIMIT = "wall_limit"
    OUTPUT_LIMIT = "output_limit"
    STOPPED = "stopped"
    """The caller needed it no longer."""
    ERROR = "error"
    """The sandbox itself failed before the first line ran: nothing is known of the program."""


class SandboxUnavailable(RewardError):
    """A layer of the sandbox cannot be made here; nothing runs with a layer missing."""

    def __init__(self, layer: str, found: str, advice: str) -> None:
        """Names the layer, what was seen, and what to do."""
        super().__init__(f"the sandbox has no {layer}: {found}. {advice}")
        self.layer = layer


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """What one run left behind, seen from outside."""

    status: SandboxStatus
    exit_code: int | None
    """The program's exit code, minus the signal's number where one ended it, and nothing where
    we ended it."""
    stdout: str
    stderr: str
    wall_s: float
    cpu_s: float

    @property
    def ok(self) -> bool:
        """Whether the program ended by itself with exit code 0."""
        return self.status is SandboxStatus.EXITED and self.exit_code == 0
