"""Runs jobs in child processes: in order, side by side where they can, finished ones not again.

    Job ──all it reads is finished──> fingerprint ──equal to the folder's──> skipped
                                          └─ new or changed ──> child ──events──> display
                                                                  └──outcome──> folder published

A failure or an interrupt stops the children, which save themselves first, and removes their
partial folders; what was finished or saved stays.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from rich.console import Console

from tutelage import errors
from tutelage.config import CheckpointConfig, Stage
from tutelage.errors import StallError, TutelageError
from tutelage.pipeline.checkpoints import CheckpointPlace
from tutelage.pipeline.fingerprint import describe_stage, difference, without_new_defaults
from tutelage.pipeline.interrupts import Interrupts
from tutelage.pipeline.references import References
from tutelage.pipeline.registry import STAGES, Registry
from tutelage.pipeline.unfinished import Beginning, as_begun, begin, remove_checkpoints
from tutelage.pipeline.watchdog import Watchdog, dump_stacks
from tutelage.pipeline.worker import (
    Failed,
    Outcome,
    Stopped,
    Succeeded,
    Task,
    start_server,
    start_worker,
)
from tutelage.tracking.format import duration
from tutelage.tracking.manifest import MANIFEST, load_manifest, verify
from tutelage.tracking.progress import (
    Event,
    ProgressDisplay,
    StageFinished,
    StageMessage,
    StageProgress,
)
from tutelage.tracking.stage import StageFolder, StageInfo, package_versions, stage_path
from tutelage.tracking.trackers import Trackers

__all__ = ["Executor", "Job", "Workplace"]

_POLL = 0.2
"""Seconds between two looks at signals while nothing arrives from the children."""


@dataclass(frozen=True)
class Job:
    """A stage to run, once all it reads is finished."""

    name: str
    stage: Stage
    seed: int
    threads: int
    after: tuple[str, ...] = ()
    """Names of the jobs it reads."""
    force: bool = False
    """Run although it is finished; begin anew where its checkpoints are of other settings."""
    weights_only: bool = False
    """Begin from the weights of its newest checkpoint, with nothing else of it."""
    cores: int = 1
    """Of all jobs together."""


@dataclass(frozen=True)
class Workplace:
    """Where jobs read, write and report."""

    folder: Path
    """Holds `stages/` and `checkpoints/`."""
    logs: Path
    """What stages print, a file each; empty ones are removed."""
    errors: Path
    """Tracebacks of unexpected errors, a file each."""
    replies: Path
    """What judges and writers have replied, a file for each stage that asks any."""
    references: References
    console: Console
    registry: Registry = STAGES
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    stall_timeout: float = 1800.0
    """Seconds without any report after which a stage is stopped; 0 waits for ever."""
    trackers: Trackers = field(default_factory=Trackers)


@dataclass
class _Running:
    """A child and the folder it writes into."""

    name: str
    process: ForkServerProcess
    connection: Connection
    folder: StageFolder
    cleanup: ExitStack
    """Publishes the folder when closed well, removes it when closed by an error."""
    task: Task
    started: float = field(default_factory=time.monotonic)
    outcome: Outcome | None = None


class Executor:
    """Runs jobs; usable once."""

    def __init__(self, place: Workplace, parallel: int, interrupts: Interrupts) -> None:
        """Runs at most `parallel` jobs side by side."""
        self._place = place
        self._parallel = parallel
        self._interrupts = interrupts
        self._display = ProgressDisplay(place.console)
        self._watchdog = Watchdog(place.stall_timeout)
        self._server: ForkServerContext | None = None
        self._waiting: list[Job] = []
        self._running: dict[Connection, _Running] = {}
        self.executed: list[str] = []
        """Jobs that ran, in the order in which they finished."""
        self.skipped: list[str] = []
        """Jobs that were finished before."""

    def run(self, jobs: Sequence[Job]) -> None:
        """Runs all jobs to their end.

        Raises:
            TutelageError: a job failed, or cannot start; the others are stopped by then.
            KeyboardInterrupt: as `Interrupts.check`; children are stopped by then.
        """
        self._waiting = list(jobs)
        try:
            with self._display:
                while self._waiting or self._running:
                    self._interrupts.check()
                    self._start_ready()
                    self._listen()
                    self._look_for_stalls()
        except BaseException as error:
            self._abandon(error)
            raise
        finally:
            for folder in (self._place.logs, self._place.errors):
                if folder.exists() and not any(folder.iterdir()):
                    folder.rmdir()

    def _start_ready(self) -> None:
        for job in list(self._waiting):
            if len(self._running) >= self._parallel:
                return
            if {*self.executed, *self.skipped}.issuperset(job.after):
                self._waiting.remove(job)
                self._begin(job)

    def _begin(self, job: Job) -> None:
        info = describe_stage(job.stage, job.seed, self._place.references)
        folder = stage_path(self._place.folder, job.name)
        if (folder / MANIFEST).exists():
            manifest = load_manifest(folder)
            known = as_begun(manifest, without_new_defaults(info, job.stage, manifest))
            reason = "forced" if job.force else difference(manifest, known)
            if not reason:
                verify(folder)
                self._note(job.name, "finished before, skipped")
                remove_checkpoints(self._place.folder, job.name)
                self.skipped.append(job.name)
                return
            self._note(job.name, f"runs again: {reason}")
        self._start(job, info)

    def _start(self, job: Job, info: StageInfo) -> None:
        beginning = begin(
            self._place.folder, job.name, info, force=job.force, weights_only=job.weights_only
        )
        if beginning.note:
            self._note(job.name, beginning.note)
        if self._server is None:
            self._server = start_server(self._place.registry.preload)
        with ExitStack() as undo:
            folder = undo.enter_context(
                StageFolder.create(self._place.folder, job.name, beginning.info)
            )
            task = self._task(job, folder.path, beginning)
            # The first child waits until the server has imported its modules.
            with self._interrupts.at_once():
                process, connection = start_worker(self._server, task)
            child = _Running(job.name, process, connection, folder, undo.pop_all(), task)
        self._running[connection] = child
        self._watchdog.heard(job.name)

    def _task(self, job: Job, folder: Path, beginning: Beginning) -> Task:
        log = self._place.logs / f"{job.name}.txt"
        error_file = self._place.errors / f"{job.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        error_file.unlink(missing_ok=True)
        about = {
            "stage": asdict(beginning.info),
            "threads": job.threads,
            "versions": package_versions(),
        }
        config = self._place.checkpoint
        return Task(
            name=job.name,
            module=self._place.registry.modules[job.stage.kind],
            config=job.stage,
            folder=folder,
            seed=job.seed,
            threads=job.threads,
            cores=job.cores,
            references=self._place.references,
            checkpoints=CheckpointPlace(beginning.folder, about, config, beginning.weights),
            log=log,
            error_file=error_file,
            replies=self._place.replies / f"{job.name}.sqlite",
            trackers=self._place.trackers,
        )

    def _listen(self) -> None:
        for ready in wait(list(self._running), timeout=_POLL if self._running else 0):
            child = self._running[ready]  # type: ignore[index]
            message = _receive(child.connection)
            if message is None:
                self._end(child)
            elif isinstance(message, Outcome):
                self._take(child, message)
            else:
                step = message.step if isinstance(message, StageProgress) else None
                self._watchdog.heard(child.name, step)
                self._display.handle(message)

    def _look_for_stalls(self) -> None:
        silent = self._watchdog.tick()
        stalled = [child for child in self._running.values() if child.name in silent]
        told = [self._stall(child) for child in stalled]
        for child in stalled:
            # It would use up the time in which the others save themselves.
            child.process.kill()
        if told:
            raise StallError("\n".join(told))

    def _stall(self, child: _Running) -> str:
        assert child.process.pid is not None
        dumped = dump_stacks(child.process.pid, child.task.log)
        where = f"are in {child.task.log}" if dumped else "could not be written"
        return (
            f"stage {child.name} made no progress for {duration(self._place.stall_timeout)}, "
            f"{self._watchdog.last_report(child.name)}; the stacks of its threads {where}. Run "
            "again: it goes on from its newest checkpoint. If its steps do take that long, raise "
            "stall_timeout"
        )

    def _take(self, child: _Running, outcome: Outcome) -> None:
        child.outcome = outcome
        if isinstance(outcome, Stopped) and outcome.step is not None:
            self._note(child.name, f"saved at step {outcome.step}")

    def _end(self, child: _Running) -> None:
        child.process.join()
        self._watchdog.forget(child.name)
        if isinstance(child.outcome, Succeeded):
            del self._running[child.connection]
            child.connection.close()
            self._publish(child, child.outcome)
            return
        if not isinstance(child.outcome, Failed):
            # A signal to the whole process group ends the children before it is noticed here.
            time.sleep(_POLL)
            self._interrupts.check()
        raise _failure(child)

    def _publish(self, child: _Running, outcome: Succeeded) -> None:
        child.folder.metrics.update(outcome.metrics)
        child.folder.earlier_seconds = outcome.earlier_seconds
        child.cleanup.close()
        remove_checkpoints(self._place.folder, child.name)
        _remove_empty(child.task.log)
        seconds = time.monotonic() - child.started
        self._display.handle(StageFinished(child.name, seconds, outcome.metrics))
        self.executed.append(child.name)

    def _abandon(self, error: BaseException) -> None:
        # A second Ctrl-C ends the waiting, and what is left to do is done all the same.
        with suppress(KeyboardInterrupt):
            self._ask_to_stop()
        for child in self._running.values():
            child.process.kill()
            child.process.join()
            # What goes wrong while tidying up must not hide why the run stopped.
            with suppress(TutelageError, OSError):
                child.cleanup.__exit__(type(error), error, error.__traceback__)
            _remove_empty(child.task.log)
        self._running.clear()

    def _ask_to_stop(self) -> None:
        """Gives the children time to save themselves at their next boundary."""
        for child in self._running.values():
            child.process.terminate()
        deadline = time.monotonic() + self._place.checkpoint.grace
        running = dict(self._running)
        while running and time.monotonic() < deadline:
            for ready in wait(list(running), timeout=_POLL):
                child = running[ready]  # type: ignore[index]
                message = _receive(child.connection)
                if message is None:
                    del running[child.connection]
                elif isinstance(message, Outcome):
                    self._take(child, message)
                elif isinstance(message, StageMessage):
                    self._note(child.name, message.text)

    def _note(self, name: str, text: str) -> None:
        self._place.console.print(f"[{name}] {text}", markup=False, highlight=False, soft_wrap=True)


def _receive(connection: Connection) -> Event | Outcome | None:
    """The next message, or None when the child has closed its end or was killed."""
    try:
        message: Event | Outcome = connection.recv()
    except (EOFError, OSError):
        return None
    return message


def _failure(child: _Running) -> TutelageError:
    outcome = child.outcome
    if isinstance(outcome, Failed):
        kind: Any = getattr(errors, outcome.error, TutelageError)
        # Not every class takes a message alone; the text is complete already.
        error: TutelageError = kind.__new__(kind)
        error.args = (f"stage {child.name}: {outcome.message}",)
        error.add_note(outcome.traceback)
        return error
    if isinstance(outcome, Stopped):
        return TutelageError(
            f"stage {child.name} was stopped by SIGTERM: run the same command again to continue"
        )
    code = child.process.exitcode
    if code == -9:
        return TutelageError(
            f"stage {child.name} was killed (SIGKILL), most often because memory ran out: "
            "run fewer stages side by side (--parallel 1) or lower its batch.microbatch_tokens; "
            "run again, it goes on from its newest checkpoint"
        )
    ended = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    return TutelageError(
        f"stage {child.name} ended {ended} without a result; what it printed is in {child.task.log}"
    )


def _remove_empty(log: Path) -> None:
    if log.exists() and not log.stat().st_size:
        log.unlink()
