"""Runs a recipe: stages in order, side by side where they can, finished ones not again.

    Recipe ──> graph ──> ready stages ──> one child process each ──events──> display
                 ^                                  │
                 └──── finished: folder published ──┘         all finished ──> report

A failure, Ctrl-C or SIGTERM stops the children and removes their partial folders; what
was finished stays, and the same command goes on from there.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from rich.console import Console

from tutelage import errors
from tutelage.config import Recipe
from tutelage.errors import ConfigError, TutelageError
from tutelage.pipeline.fingerprint import describe_stage, stage_seed
from tutelage.pipeline.graph import (
    available_cores,
    check_stage_names,
    needed_stages,
    stage_threads,
)
from tutelage.pipeline.interrupts import Interrupts
from tutelage.pipeline.references import References
from tutelage.pipeline.registry import STAGE_MODULES
from tutelage.pipeline.worker import Failed, Succeeded, Task, start_server, start_worker
from tutelage.tracking.lock import RunLock
from tutelage.tracking.manifest import MANIFEST, Manifest, load_manifest, verify
from tutelage.tracking.progress import Event, ProgressDisplay, StageFailed, StageFinished
from tutelage.tracking.stage import StageFolder, StageInfo, stage_path

__all__ = ["RunResult", "run_recipe"]

_POLL = 0.2
"""Seconds between two looks at signals while nothing arrives from the children."""


@dataclass(frozen=True)
class RunResult:
    """What a run did and where it is."""

    folder: Path
    executed: tuple[str, ...]
    """Stages that ran, in the order in which they finished."""
    skipped: tuple[str, ...]
    """Stages that were finished before."""

    def stage(self, name: str) -> Path:
        """The folder of a finished stage."""
        return stage_path(self.folder, name)


def run_recipe(
    recipe: Recipe,
    run_folder: Path,
    *,
    only: Sequence[str] | None = None,
    force: Sequence[str] = (),
    display: bool = True,
    modules: Mapping[str, str] = STAGE_MODULES,
) -> RunResult:
    """Runs every stage that is not finished and writes summary and report.

    Args:
        recipe: The stages and their settings.
        run_folder: Where everything goes; an existing one is continued.
        only: Run these stages and what they need; unset runs all.
        force: Run these again although they are finished, and so all that reads them.
        display: Show progress and the final table on standard output.
        modules: Module of the stage function by kind.

    Raises:
        ConfigError: an input is not given, or a name is no stage.
        DataError: a file that is read does not exist, or a stage refused its data.
        CheckpointError: another run uses the folder, a finished stage is damaged, or the
            disk is full.
        TutelageError: a stage failed; its class says why.
        KeyboardInterrupt: Ctrl-C, or SIGTERM as `Terminated`; children are stopped by then.
    """
    check_stage_names(recipe, only or (), "--only")
    check_stage_names(recipe, force, "--force")
    references = _references(recipe, run_folder)
    with RunLock(run_folder), Interrupts() as interrupts:
        executor = _Executor(recipe, run_folder, references, force, modules, display, interrupts)
        executor.run(needed_stages(recipe, only or recipe.stages))
    return RunResult(run_folder, tuple(executor.executed), tuple(executor.skipped))


def _references(recipe: Recipe, run_folder: Path) -> References:
    missing = [name for name, value in recipe.inputs.items() if value is None]
    if missing:
        flags = " ".join(f"--inputs.{name} FILE" for name in missing)
        raise ConfigError(f"the recipe needs files of yours, add: {flags}")
    inputs = {
        name: tuple(map(Path, [value] if isinstance(value, str) else value or ()))
        for name, value in recipe.inputs.items()
    }
    references = References({name: stage_path(run_folder, name) for name in recipe.stages}, inputs)
    for stage in recipe.stages.values():
        for reference in stage.references():
            if references.stage_folder(reference) is None:
                references.outside(reference)
    return references


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
    started: float
    outcome: Succeeded | Failed | None = None


class _Executor:
    def __init__(
        self,
        recipe: Recipe,
        run_folder: Path,
        references: References,
        force: Sequence[str],
        modules: Mapping[str, str],
        display: bool,
        interrupts: Interrupts,
    ) -> None:
        self._recipe = recipe
        self._folder = run_folder
        self._references = references
        self._force = set(force)
        self._modules = modules
        self._console = Console(quiet=not display)
        self._display = ProgressDisplay(self._console)
        self._interrupts = interrupts
        self._threads = recipe.threads or available_cores()
        self._parallel = min(recipe.parallel or available_cores(), self._threads)
        self._server: ForkServerContext | None = None
        self._waiting: list[str] = []
        self._running: dict[str, _Running] = {}
        self._finished: set[str] = set()
        self.executed: list[str] = []
        self.skipped: list[str] = []

    def run(self, names: Sequence[str]) -> None:
        self._waiting = list(names)
        try:
            with self._display:
                while self._waiting or self._running:
                    self._interrupts.check()
                    self._start_ready()
                    self._listen()
        except BaseException as error:
            self._abandon(error)
            raise

    def _start_ready(self) -> None:
        for name in list(self._waiting):
            if not self._finished.issuperset(self._recipe.dependencies(name)):
                continue
            if len(self._running) >= self._parallel:
                return
            self._waiting.remove(name)
            stage, seed = self._recipe.stages[name], stage_seed(self._recipe, name)
            info = describe_stage(stage, seed, self._references)
            reason = self._stale(name, info)
            if reason:
                self._start(name, info, reason)
            else:
                self._note(name, "finished before, skipped")
                self._finished.add(name)
                self.skipped.append(name)
                # Skipping may have made a stage further up the list ready.
                return self._start_ready()

    def _stale(self, name: str, info: StageInfo) -> str:
        folder = stage_path(self._folder, name)
        if not (folder / MANIFEST).exists():
            return "new"
        if name in self._force:
            return "forced"
        manifest = load_manifest(folder)
        if manifest.fingerprint == info.fingerprint:
            verify(folder)
            return ""
        return _difference(manifest, info)

    def _start(self, name: str, info: StageInfo, reason: str) -> None:
        if reason != "new":
            self._note(name, f"runs again: {reason}")
        if self._server is None:
            self._server = start_server()
        cleanup = ExitStack()
        folder = cleanup.enter_context(StageFolder.create(self._folder, name, info))
        try:
            task = self._task(name, info, folder.path)
            process, connection = start_worker(self._server, task)
        except BaseException as error:
            cleanup.__exit__(type(error), error, error.__traceback__)
            raise
        self._running[name] = _Running(
            name, process, connection, folder, cleanup, task, time.monotonic()
        )

    def _task(self, name: str, info: StageInfo, folder: Path) -> Task:
        log = self._folder / "logs" / f"{name}.txt"
        error_file = self._folder / "errors" / f"{name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        error_file.unlink(missing_ok=True)
        return Task(
            name=name,
            module=self._modules[info.kind],
            config=self._recipe.stages[name],
            folder=folder,
            seed=info.seed,
            threads=stage_threads(self._recipe, name, self._threads, self._parallel),
            references=self._references,
            log=log,
            error_file=error_file,
        )

    def _listen(self) -> None:
        children = {child.connection: child for child in self._running.values()}
        for ready in wait(list(children), timeout=_POLL):
            child = children[ready]  # type: ignore[index]
            message = _receive(child.connection)
            if message is None:
                self._end(child)
            elif isinstance(message, Succeeded | Failed):
                child.outcome = message
            else:
                self._display.handle(message)

    def _end(self, child: _Running) -> None:
        child.process.join()
        child.connection.close()
        if isinstance(child.outcome, Succeeded):
            child.folder.metrics.update(child.outcome.metrics)
            del self._running[child.name]
            child.cleanup.close()
            _remove_empty(child.task.log)
            seconds = time.monotonic() - child.started
            self._display.handle(StageFinished(child.name, seconds, child.outcome.metrics))
            self._finished.add(child.name)
            self.executed.append(child.name)
            return
        # A signal to the whole process group ends the children before it is noticed here.
        time.sleep(_POLL)
        self._interrupts.check()
        error = _failure(child)
        self._display.handle(StageFailed(child.name, str(error).splitlines()[0]))
        raise error

    def _abandon(self, error: BaseException) -> None:
        for child in self._running.values():
            child.process.terminate()
        for child in self._running.values():
            child.process.join(timeout=5)
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
            try:
                child.cleanup.__exit__(type(error), error, error.__traceback__)
            except BaseException as raised:
                if raised is not error:
                    raise
            _remove_empty(child.task.log)
        self._running.clear()

    def _note(self, name: str, text: str) -> None:
        self._console.print(f"[{name}] {text}", markup=False, highlight=False, soft_wrap=True)


def _receive(connection: Connection) -> Event | Succeeded | Failed | None:
    """The next message, or None when the child has closed its end or was killed."""
    try:
        message: Event | Succeeded | Failed = connection.recv()
    except (EOFError, OSError):
        return None
    return message


def _difference(manifest: Manifest, info: StageInfo) -> str:
    keys = [key for key, value in info.config.items() if manifest.config.get(key) != value]
    read = [name for name, value in info.inputs.items() if manifest.inputs.get(name) != value]
    if keys:
        return f"{', '.join(keys)} changed in its configuration"
    if read:
        return f"{', '.join(read)} changed"
    if manifest.seed != info.seed:
        return f"its seed changed from {manifest.seed} to {info.seed}"
    return "another version of Tutelage made it"


def _failure(child: _Running) -> TutelageError:
    outcome = child.outcome
    if isinstance(outcome, Failed):
        kind: Any = getattr(errors, outcome.error, TutelageError)
        # Not every class takes a message alone; the text is complete already.
        error: TutelageError = kind.__new__(kind)
        error.args = (f"stage {child.name}: {outcome.message}",)
        error.add_note(outcome.traceback)
        return error
    code = child.process.exitcode
    if code == -9:
        return TutelageError(
            f"stage {child.name} was killed (SIGKILL), most often because memory ran out: "
            "run fewer stages side by side (--parallel 1) or make its batches smaller"
        )
    ended = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    return TutelageError(
        f"stage {child.name} ended {ended} without a result; what it printed is in {child.task.log}"
    )


def _remove_empty(log: Path) -> None:
    if log.exists() and not log.stat().st_size:
        log.unlink()
