"""What a row of the benchmark is: sides that do the same work, and what is compared.

Row ── Side "tutelage"      workload in this project's environment
    ├─ Side "TRL default"   workload in the peer's environment
    ├─ Side "TRL tuned"
    └─ Side "vLLM"          workload in an environment of vLLM's own
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, Self

__all__ = ["Check", "NotAvailable", "Row", "Side", "Workload", "clocks"]

Device = Literal["cpu", "cuda"]


class NotAvailable(Exception):
    """A side cannot do this work yet, or not here; the message says why."""


@dataclass(frozen=True)
class Check:
    """One line of the parity gate: `value` must not exceed `limit`."""

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the gate opens; a value that is not a number keeps it shut."""
        return self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        """All fields and the verdict."""
        return {**asdict(self), "passed": self.passed}


def clocks(device: str) -> tuple[str, str]:
    """What is compared on a device: CPU seconds say nothing about a GPU, its own events do."""
    return ("wall_s", "device_s") if device == "cuda" else ("wall_s", "cpu_s")


class Workload(Protocol):
    """What a side does. Constructed with the side's options, in the side's own process."""

    def prepare(self) -> None:
        """Builds models and data and warms up; not timed. May raise `NotAvailable`."""
        ...

    def run(self) -> Mapping[str, float]:
        """The timed work, once.

        Returns figures by name. `tokens`, the real response tokens, must be the same on all
        sides. `wall_s` and `cpu_s` replace the worker's own clocks where only a part of the call
        is timed.
        """
        ...


@dataclass(frozen=True)
class Side:
    """One contender in a row."""

    name: str
    workload: str
    """`module:Class`, constructed with `options` as keyword arguments."""
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Literal["tutelage", "peer", "vllm"] = "tutelage"
    format: str = "float32"
    """Of its matrix products: which limit it is held against."""
    gated: bool = False
    """Whether the workload has a `check()` that returns the parity gate's lines."""

    @property
    def ours(self) -> bool:
        """Whether it is this project's side."""
        return self.environment == "tutelage"

    def on(self, device: Device) -> Self:
        """The same work on another device, where it says on which it is."""
        if "device" not in self.options:
            return self
        return replace(self, options={**self.options, "device": device})


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    """What is timed."""
    goal: str
    sides: Sequence[Side]
    quantities: Sequence[str] = ("wall_s", "cpu_s")
    """What is compared, smaller is better; the first decides which peer is the best."""
    repeatable: bool = True
    """Whether repeats do the same work, so that a difference between them is noise."""
    selected: bool = True
    """Whether it runs when no row is named."""
    fresh: bool = False
    """Whether each repeat has a process of its own."""
    device: Device = "cpu"
    work: Mapping[str, Any] | None = None
    """Keyword arguments of `benchmarks.sides.limits.least_seconds`, where a limit is known: all
    but format and rates, which are the sides' and the machine's."""

    def on(self, device: Device) -> Self:
        """The same row on another device, compared by that device's clocks."""
        clock = dict(zip(clocks(self.device), clocks(device), strict=True))
        compared = [clock.get(name, name) for name in self.quantities]
        return replace(
            self,
            device=device,
            sides=[side.on(device) for side in self.sides],
            quantities=[name for name in compared if device == "cuda" or name != "device_bytes"],
        )
