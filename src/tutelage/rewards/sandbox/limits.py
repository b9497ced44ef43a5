"""What a program in the sandbox may use at most."""

import math
from dataclasses import dataclass, fields

from tutelage.errors import ConfigError

__all__ = ["Limits"]

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run. The kernel keeps all but `wall_s` and `output_bytes`, which we keep.

    Together the processes of a run hold at most `processes * memory_bytes + disk_bytes`.
    """

    cpu_s: int = 3
    """Seconds of processor time, per process. Decides alone how long a busy program may run as
    long as `wall_s` leaves room for it, so verdicts do not depend on how busy the machine is."""
    wall_s: float = 30.0
    """Seconds on the clock, counted from the first line of the program."""
    memory_bytes: int = 512 * _MIB
    """Address space of one process, the interpreter's own 20 MiB included."""
    disk_bytes: int = 16 * _MIB
    """Size of `/tmp`, the only place that can be written."""
    output_bytes: int = _MIB
    """Standard output and standard error together."""
    processes: int = 1
    """Processes and threads at the same time, the program itself included."""
    open_files: int = 64
    """Open files, pipes and sockets per process."""

    def __post_init__(self) -> None:
        """Refuses what is not positive, and fractions where the kernel counts whole units."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{entry.name} is {value}, expected a number above 0")
            if entry.name != "wall_s" and value != int(value):
                raise ConfigError(f"{entry.name} is {value}, expected a whole number")
