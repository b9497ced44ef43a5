"""Runs a recipe, or one stage on its own.

    Recipe ──> jobs ──Executor──> finished stages ──> summary.json, report.html, table
    Stage  ──> job  ──Executor──> finished stage  ──> the folder the user named

Run again, a command goes on from the stages that are finished, and inside those that had saved
themselves.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tutelage.config import Recipe, Stage
from tutelage.errors import ConfigError
from tutelage.pipeline.executor import Executor, Job, Workplace
from tutelage.pipeline.extras import require_extras
from tutelage.pipeline.fingerprint import (
    describe_stage,
    difference,
    stage_seed,
    without_new_defaults,
)
from tutelage.pipeline.finish import finish_run, open_console, write_recipe
from tutelage.pipeline.graph import (
    available_cores,
    check_stage_names,
    needed_stages,
    stage_threads,
)
from tutelage.pipeline.interrupts import Interrupts
from tutelage.pipeline.plan.check import check_memory, check_memory_of_stage, to_be_run
from tutelage.pipeline.references import References
from tutelage.pipeline.registry import STAGES, Registry
from tutelage.pipeline.unfinished import has_checkpoints
from tutelage.tracking.lock import RunLock
from tutelage.tracking.manifest import MANIFEST, load_manifest, verify
from tutelage.tracking.stage import stage_path
from tutelage.tracking.trackers import Trackers, check_trackers

__all__ = ["RunResult", "run_recipe", "run_stage"]


@dataclass(frozen=True)
class RunResult:
    """What a run did and where it is."""

    folder: Path
    executed: tuple[str, ...]
    """Stages that ran, in the order in which they finished."""
    skipped: tuple[str, ...]
    """Stages that were finished before."""
    report: Path | None
    """The page that shows everything; None where matplotlib is not installed."""

    def stage(self, name: str) -> Path:
        """The folder of a finished stage."""
        return stage_path(self.folder, name)


def run_recipe(
    recipe: Recipe,
    run_folder: Path,
    *,
    only: Sequence[str] | None = None,
    force: Sequence[str] = (),
    weights_only: Sequence[str] = (),
    time_limit: float | None = None,
    display: bool = True,
    registry: Registry = STAGES,
) -> RunResult:
    """Runs every stage that is not finished, then writes summary and report.

    Args:
        recipe: The stages and their settings.
        run_folder: Where everything goes; an existing one is continued.
        only: Run these stages and what they need; unset runs all.
        force: Run these again although they are finished, and so all that reads them; begin them
            anew where they have saved themselves with other settings.
        weights_only: Begin these from the weights of their newest checkpoint, with a new
            optimiser and at their first step.
        time_limit: Seconds after which running stages save themselves and the run ends.
        display: Show progress and the final table on standard output.
        registry: The stage functions.

    Raises:
        ConfigError: an input is not given, a name is no stage, an unfinished stage has saved
            itself with other settings, or the run does not fit into memory.
        DataError: a file that is read does not exist, or a stage refused its data.
        MissingExtraError: what a stage or a tracker needs is not installed.
        CheckpointError: another run uses the folder, a finished stage is damaged, or the
            disk is full.
        StallError: a stage made no progress for longer than `stall_timeout`.
        TutelageError: a stage failed; its class says why.
        KeyboardInterrupt: Ctrl-C, SIGTERM as `Terminated`, or the time limit as
            `TimeLimitReached`; children are stopped by then.
    """
    started = time.monotonic()
    check_stage_names(recipe, only or (), "--only")
    check_stage_names(recipe, force, "--force")
    check_stage_names(recipe, weights_only, "--weights-only")
    require_extras(recipe.stages[name] for name in needed_stages(recipe, only or recipe.stages))
    references = _references(recipe, run_folder)
    check_trackers(recipe.trackers)
    console = open_console(quiet=not display)
    wanted = needed_stages(recipe, only or tuple(recipe.stages))
    check_memory(
        recipe, references, to_be_run(recipe, references, wanted, force), console, registry
    )
    place = Workplace(
        run_folder,
        run_folder / "logs",
        run_folder / "errors",
        run_folder / "replies",
        references,
        console,
        registry,
        recipe.checkpoint,
        recipe.stall_timeout,
        Trackers(recipe.trackers, recipe.name, run_folder),
    )
    with RunLock(run_folder), Interrupts(time_limit) as interrupts:
        write_recipe(recipe, run_folder)
        cores = recipe.threads or available_cores()
        parallel = min(recipe.parallel or available_cores(), cores)
        executor = Executor(place, parallel, interrupts)
        jobs = _jobs(recipe, only or tuple(recipe.stages), cores, parallel)
        executor.run(
            [replace(j, force=j.name in force, weights_only=j.name in weights_only) for j in jobs]
        )
        seconds = None if executor.skipped else time.monotonic() - started
        report = finish_run(recipe, run_folder, seconds, console, bool(executor.executed))
    return RunResult(run_folder, tuple(executor.executed), tuple(executor.skipped), report)


def run_stage(
    stage: Stage,
    output: Path,
    *,
    display: bool = True,
    registry: Registry = STAGES,
) -> Path:
    """Runs one stage on its own and writes a finished stage folder.

    References are paths: of files, of finished stages of other runs, or names on a hub. A stage
    that is interrupted leaves its checkpoints in a hidden folder beside `output`, and the same call
    goes on from there.

    Args:
        stage: The stage's settings.
        output: The folder to write. One that holds the same finished stage is kept.
        display: Show progress on standard output.
        registry: The stage functions.

    Raises:
        ConfigError: `output` holds something else.
        TutelageError: as `run_recipe`.
    """
    require_extras([stage])
    seed, references = stage_seed(stage, stage.kind, 0), References()
    console = open_console(quiet=not display)
    if _is_finished(stage, seed, output):
        console.print(f"{output} is finished already", highlight=False, soft_wrap=True)
        return output
    hidden = output.with_name(f".{output.name}.partial")
    logs, errors, replies = (
        output.with_name(f"{output.name}.{name}") for name in ("logs", "errors", "replies")
    )
    place = Workplace(hidden, logs, errors, replies, references, console, registry)
    check_memory_of_stage(stage, references, console, registry)
    with RunLock(hidden), Interrupts() as interrupts:
        try:
            cores = available_cores()
            job = Job(stage.kind, stage, seed, threads=cores, cores=cores)
            Executor(place, 1, interrupts).run([job])
            if output.exists():
                output.rmdir()
            stage_path(hidden, stage.kind).rename(output)
        finally:
            if not has_checkpoints(hidden):
                shutil.rmtree(hidden, ignore_errors=True)
    return output


def _references(recipe: Recipe, run_folder: Path) -> References:
    missing = [name for name, value in recipe.inputs.items() if value is None]
    if missing:
        flags = " ".join(f"--inputs.{name} FILE" for name in missing)
        raise ConfigError(f"{recipe.name} needs files of yours, add: {flags}")
    inputs = {
        name: tuple(map(Path, [value] if isinstance(value, str) else value or ()))
        for name, value in recipe.inputs.items()
    }
    references = References({name: stage_path(run_folder, name) for name in recipe.stages}, inputs)
    read = [reference for stage in recipe.stages.values() for reference in stage.references()]
    for reference in [*(f"inputs/{name}" for name in inputs), *read]:
        if references.stage_folder(reference) is None:
            references.outside(reference)
    return references


def _jobs(recipe: Recipe, wanted: Sequence[str], threads: int, parallel: int) -> list[Job]:
    return [
        Job(
            name,
            recipe.stages[name],
            stage_seed(recipe.stages[name], name, recipe.seed),
            stage_threads(recipe, name, threads, parallel),
            recipe.dependencies(name),
            cores=threads,
        )
        for name in needed_stages(recipe, wanted)
    ]


def _is_finished(stage: Stage, seed: int, output: Path) -> bool:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if not (output / MANIFEST).is_file():
        raise ConfigError(f"{output} is not empty: choose another folder or delete it")
    manifest = load_manifest(output)
    info = describe_stage(stage, seed, References())
    changed = difference(manifest, without_new_defaults(info, stage, manifest))
    if changed:
        raise ConfigError(
            f"{output} holds a finished stage of kind {manifest.kind} made with other settings "
            f"({changed}): choose another folder or delete it"
        )
    verify(output)
    return True
