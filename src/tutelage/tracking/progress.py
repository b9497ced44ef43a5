"""Live progress of stages that run in other processes.

    child:  Progress.step(...) ──event──> multiprocessing queue
    parent: queue ──> ProgressDisplay.handle(event) ──> bars on a terminal, lines in a pipe

Events are plain data, so that any process can send them. On a terminal each running
stage has a bar; anywhere else each stage prints a line every few seconds, without
control characters, and one line when it ends.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from tutelage.tracking.format import duration, number, one_line

__all__ = [
    "Event",
    "NullProgress",
    "Progress",
    "ProgressDisplay",
    "StageFailed",
    "StageFinished",
    "StageMessage",
    "StageProgress",
    "StageStarted",
]

_SHOWN = {
    "pretrain/loss": "loss",
    "pretrain/fact_accuracy": "facts",
    "sft/loss": "loss",
    "dpo/loss": "loss",
    "dpo/accuracy": "accuracy",
    "dpo/margin": "margin",
    "reward_model/loss": "loss",
    "reward_model/accuracy": "accuracy",
    "reward_model/held_out_accuracy": "held-out accuracy",
    "reward/score": "reward",
    "kl/sequence": "KL",
    "response/length": "length",
}
"""The metrics worth a place on the progress line; the others are in the files."""


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage began; `total` steps where that is known."""

    stage: str
    total: int | None = None


@dataclass(frozen=True, slots=True)
class StageProgress:
    """`step` of `total` steps are done."""

    stage: str
    step: int
    total: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class StageMessage:
    """A sentence for the person who watches."""

    stage: str
    text: str


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A stage ended well after `seconds`."""

    stage: str
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageFailed:
    """A stage ended without a result."""

    stage: str
    reason: str


Event = StageStarted | StageProgress | StageMessage | StageFinished | StageFailed


class Progress:
    """What a stage reports through, without knowing who listens."""

    def __init__(
        self,
        stage: str,
        send: Callable[[Event], None],
        *,
        every: float = 0.2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reports as `stage` to `send`, usually `queue.put`.

        Args:
            every: seconds between two step events; the steps between are not sent.
        """
        self.stage = stage
        self._send = send
        self._every = every
        self._clock = clock
        self._sent = -every

    def start(self, total: int | None = None) -> None:
        """The stage begins."""
        self._send(StageStarted(self.stage, total))

    def step(
        self, step: int, total: int | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """`step` of `total` steps are done; `throughput/tokens_per_second` shows as speed."""
        now = self._clock()
        if now - self._sent < self._every and step != total:
            return
        self._sent = now
        numbers = {key: float(value) for key, value in (metrics or {}).items()}
        speed = numbers.get("throughput/tokens_per_second")
        self._send(StageProgress(self.stage, step, total, numbers, speed))

    def message(self, text: str) -> None:
        """A sentence for the person who watches."""
        self._send(StageMessage(self.stage, text))

    def finish(self, seconds: float, metrics: Mapping[str, float] | None = None) -> None:
        """The stage ended well."""
        numbers = {key: float(value) for key, value in (metrics or {}).items()}
        self._send(StageFinished(self.stage, seconds, numbers))

    def fail(self, reason: str) -> None:
        """The stage ended without a result."""
        self._send(StageFailed(self.stage, reason))


class NullProgress(Progress):
    """Reports to nobody."""

    def __init__(self) -> None:
        """Needs no stage name."""
        super().__init__("", lambda event: None)


@dataclass
class _Stage:
    """What the display knows of a running stage."""

    name: str
    started: float
    printed: float
    step: int = 0
    total: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    tokens_per_second: float | None = None

    @property
    def count(self) -> str:
        """`120/300 (40 %)`, or what is known of it."""
        if not self.total:
            return f"step {self.step}" if self.step else ""
        return f"{self.step}/{self.total} ({100 * self.step // self.total} %)"

    def details(self, now: float) -> list[str]:
        """Speed, metrics and time left."""
        parts = []
        if self.tokens_per_second:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        parts += _numbers(self.metrics)
        if self.total and 0 < self.step < self.total:
            left = (now - self.started) / self.step * (self.total - self.step)
            parts.append(f"{duration(round(left)) if left >= 9.95 else f'{left:.0f} s'} left")
        return parts


class ProgressDisplay:
    """Renders the events of all stages; a context manager that restores the terminal."""

    def __init__(
        self,
        console: Console | None = None,
        *,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Shows bars where `console` is a terminal, else lines.

        Args:
            console: standard output by default.
            every: least number of seconds between two lines of one stage in a pipe.
        """
        self._console = console or Console()
        self._every = every
        self._clock = clock
        self._stages: dict[str, _Stage] = {}
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._bars = _Bars(self._console, clock) if live else None

    def handle(self, event: Event) -> None:
        """Takes one event; a stage that was not announced is announced by its first event."""
        now = self._clock()
        if isinstance(event, StageFinished | StageFailed):
            self._end(event)
            return
        stage = self._stages.get(event.stage)
        if stage is None:
            stage = self._begin(event, now)
        if isinstance(event, StageMessage):
            self._line(event.stage, one_line(event.text))
        elif isinstance(event, StageProgress):
            stage.step, stage.total = event.step, event.total or stage.total
            stage.metrics, stage.tokens_per_second = event.metrics, event.tokens_per_second
            if self._bars:
                self._bars.show(stage)
            elif now - stage.printed >= self._every:
                stage.printed = now
                self._line(stage.name, ", ".join([stage.count, *stage.details(now)]))

    def _begin(self, event: StageStarted | StageProgress | StageMessage, now: float) -> _Stage:
        total = None if isinstance(event, StageMessage) else event.total
        stage = self._stages[event.stage] = _Stage(event.stage, now, now, total=total)
        if self._bars:
            self._bars.show(stage)
        else:
            self._line(stage.name, f"started, {total:,} steps" if total else "started")
        return stage

    def _end(self, event: StageFinished | StageFailed) -> None:
        self._stages.pop(event.stage, None)
        if self._bars:
            self._bars.remove(event.stage)
        if isinstance(event, StageFailed):
            self._line(event.stage, f"failed: {one_line(event.reason)}", style="red", mark="✗")
        else:
            text = ", ".join([f"done in {duration(event.seconds)}", *_numbers(event.metrics)])
            self._line(event.stage, text, style="green", mark="✓")

    def _line(self, stage: str, text: str, *, style: str = "cyan", mark: str = "·") -> None:
        if self._bars:
            self._console.print(Text.assemble((mark, style), f" {stage:<20} {text}"))
        else:
            self._console.print(
                f"[{stage}] {text}", markup=False, highlight=False, emoji=False, soft_wrap=True
            )

    def __enter__(self) -> Self:
        """Starts the live display where there is one."""
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the live display and leaves the printed lines."""
        if self._bars:
            self._bars.stop()


class _Bars:
    """One bar per running stage at the foot of the terminal."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tasks: dict[str, TaskID] = {}
        self._progress = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, style="bold"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", markup=False),
            TextColumn("{task.fields[details]}", markup=False, style="cyan"),
            console=console,
            transient=True,
        )

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def show(self, stage: _Stage) -> None:
        if stage.name not in self._tasks:
            self._tasks[stage.name] = self._progress.add_task(stage.name, count="", details="")
        self._progress.update(
            self._tasks[stage.name],
            completed=stage.step,
            total=stage.total,
            count=stage.count,
            details=" · ".join(stage.details(self._clock())),
            refresh=True,
        )

    def remove(self, name: str) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))
            self._progress.refresh()


def _numbers(metrics: Mapping[str, float]) -> list[str]:
    return [f"{label} {number(metrics[key])}" for key, label in _SHOWN.items() if key in metrics]
