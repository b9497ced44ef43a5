"""One stage in a process of its own.

    parent ──Task──> run_task ──> stage function ──Event──> parent
                        └── Succeeded | Failed | Stopped ──> parent

A fork server that has already imported torch and transformers makes a child cost a tenth
of a second. It never imports the gold score, and neither may the child, unless it evaluates.
"""

import errno
import faulthandler
import fcntl
import importlib
import io
import multiprocessing
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from tutelage.config import Stage
from tutelage.errors import TutelageError
from tutelage.pipeline.checkpoints import CheckpointPlace, Checkpoints, StopRequested
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.isolation import MAY_SEE_GOLD, forbid_gold, gold_calls
from tutelage.pipeline.references import References
from tutelage.pipeline.watchdog import prepare_dump
from tutelage.tracking.atomic import storage_error
from tutelage.tracking.metrics import MetricWriter
from tutelage.tracking.progress import Progress
from tutelage.tracking.trackers import TrackedStage, Trackers

__all__ = [
    "Failed",
    "Outcome",
    "Stopped",
    "Succeeded",
    "Task",
    "run_task",
    "start_server",
    "start_worker",
    "without_main",
]

_F_SETSIG = 10
"""Of Linux' fcntl.h: which signal O_ASYNC sends."""


@dataclass(frozen=True)
class Task:
    """All that a child process needs to run a stage."""

    name: str
    module: str
    """Module whose `run(config, context)` is the stage function."""
    config: Stage
    folder: Path
    seed: int
    threads: int
    references: References
    checkpoints: CheckpointPlace
    log: Path
    """Receives what the stage prints."""
    error_file: Path
    """Receives the traceback of an error nobody expected."""
    replies: Path | None = None
    """Keeps what models behind endpoints have replied."""
    trackers: Trackers = field(default_factory=Trackers)
    cores: int = 1
    """Of all stages together."""


@dataclass(frozen=True)
class Succeeded:
    """The stage function returned."""

    metrics: Mapping[str, float]
    earlier_seconds: float
    """What earlier processes spent on the steps that this one took up from a checkpoint."""


@dataclass(frozen=True)
class Failed:
    """The stage function raised."""

    error: str
    """Class in `tutelage.errors`."""
    message: str
    traceback: str


@dataclass(frozen=True)
class Stopped:
    """SIGTERM has ended the stage at a boundary."""

    step: int | None
    """Of the newest checkpoint; None where none could be saved."""


Outcome = Succeeded | Failed | Stopped


def start_server(preload: Sequence[str]) -> ForkServerContext:
    """Starts the fork server, which imports the named modules while the caller goes on.

    A process has one fork server: where it runs already, its modules stay as they are.
    """
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preload, __name__])
    with _ignoring_interrupts(), without_main(), _environment():
        forkserver.ensure_running()
    return context


def start_worker(context: ForkServerContext, task: Task) -> tuple[ForkServerProcess, Connection]:
    """Starts a child; events and the outcome arrive on the connection."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_task, args=(task, sender), name=task.name)
    with without_main():
        process.start()
    sender.close()
    return process, receiver


def run_task(task: Task, sender: Connection) -> None:
    """The child's whole life: runs the stage and sends its outcome."""
    try:
        _prepare_process(task)
        outcome: Outcome = _run_stage(task, sender)
    except StopRequested as stop:
        outcome = Stopped(stop.step)
    except TutelageError as error:
        name = next(c.__name__ for c in type(error).__mro__ if c.__module__ == "tutelage.errors")
        outcome = Failed(name, str(error), traceback.format_exc())
    except Exception as error:
        outcome = _unexpected(task, error)
    sender.send(outcome)
    sender.close()


def _run_stage(task: Task, sender: Connection) -> Succeeded:
    if task.config.kind not in MAY_SEE_GOLD:
        forbid_gold(task.name)
    _seed_everything(task.seed)
    progress = Progress(task.name, sender.send)
    progress.start()
    checkpoints = Checkpoints(task.checkpoints, task.folder, progress)
    spent = checkpoints.earlier_seconds
    trackers = task.trackers.open(_tracked(task), task.folder, progress.message)
    with MetricWriter.open(
        task.folder, trackers, seconds=spent, report=progress.message
    ) as metrics:
        checkpoints.count_in(metrics)
        context = StageContext(
            name=task.name,
            folder=task.folder,
            seed=task.seed,
            threads=task.threads,
            cores=task.cores,
            progress=progress,
            metrics=metrics,
            references=task.references,
            checkpoints=checkpoints,
            evidence=task.error_file.with_suffix(""),
            replies=task.replies,
        )
        result = importlib.import_module(task.module).run(task.config, context)
    numbers = {key: float(value) for key, value in result.items()}
    return Succeeded({**numbers, "gold_calls": float(gold_calls())}, spent)


def _unexpected(task: Task, error: Exception) -> Failed:
    text = traceback.format_exc()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = Path(error.filename) if isinstance(error.filename, str) else task.folder
        return Failed("CheckpointError", str(storage_error(where, error)), text)
    summary = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
    try:
        task.error_file.parent.mkdir(parents=True, exist_ok=True)
        task.error_file.write_text(text, encoding="utf-8")
        place = f"the traceback is in {task.error_file}"
    except OSError as failure:
        place = f"the traceback could not be written: {failure.strerror}"
    return Failed("TutelageError", f"unexpected {summary}; {place}", text)


def _tracked(task: Task) -> TrackedStage:
    return TrackedStage(task.name, task.checkpoints.folder.name, task.config.to_json())


def _prepare_process(task: Task) -> None:
    # A terminal sends Ctrl-C to every process; the parent alone decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Until the stage has something to save, SIGTERM ends it at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_parent()
    _redirect_output(task.log)
    faulthandler.enable()
    prepare_dump()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[variable] = str(task.threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(task.threads)
    transformers = sys.modules.get("transformers")
    if transformers is not None:
        transformers.utils.logging.disable_progress_bar()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        # The kernel kills: a library that holds the interpreter would keep the thread waiting.
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(parent.sentinel, _F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="watch parent", daemon=True).start()


class _LogFile(io.FileIO):
    """Loses what the disk has no room for: what a stage prints is not worth the stage."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(memoryview(data).cast("B"))


def _redirect_output(log: Path) -> None:
    # Warnings of libraries would tear the parent's progress display apart.
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.BufferedWriter(_LogFile(number, "w", closefd=False)),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        for number in (1, 2)
    )


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    # An ignored signal stays ignored in the server and its children: Ctrl-C while the
    # server imports torch would otherwise print its traceback.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _environment() -> Iterator[None]:
    changed = {
        # The order of a set of strings would otherwise differ from run to run.
        "PYTHONHASHSEED": "0",
        # What a stopped child leaves to be tidied up is tidied up, and nobody's concern.
        "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",
        # Large tensors on a CPU in pages of 2 MiB, where the kernel has them on request: those of
        # 4 KiB are filled with zeros one by one, which slows float32 down (docs/performance.md).
        "THP_MEM_ALLOC_ENABLE": os.environ.get("THP_MEM_ALLOC_ENABLE", "1"),
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def without_main() -> Iterator[None]:
    """Children started within the block do not import the caller's main module."""
    # multiprocessing imports the caller's main module again in every child, to find what is
    # defined there. Nothing of ours is, and a script without a main guard would start anew.
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
