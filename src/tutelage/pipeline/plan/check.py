"""Before a run begins: whether it fits, found out in a child process.

    parent ──recipe──> child of the fork server: counts models, reads memory ──Verdict──> parent
             no torch here      torch is there already, for the stages

What cannot be counted is not refused: the stage that loads it says what is wrong with it.
"""

from collections.abc import Collection, Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console

from tutelage.config import Recipe, Stage
from tutelage.errors import ConfigError, TutelageError
from tutelage.pipeline.plan.devices import present_device
from tutelage.pipeline.plan.recipe import ALONE, MODEL_KINDS
from tutelage.pipeline.plan.table import Verdict, refusal
from tutelage.pipeline.plan.verdict import judge
from tutelage.pipeline.references import References
from tutelage.pipeline.registry import STAGES, Registry
from tutelage.pipeline.worker import start_server, without_main
from tutelage.tracking.manifest import MANIFEST, load_manifest

__all__ = ["check_memory", "check_memory_of_stage", "to_be_run"]


def to_be_run(
    recipe: Recipe, references: References, names: Iterable[str], force: Collection[str]
) -> list[str]:
    """The named stages without those that are finished and not forced.

    Args:
        recipe: whose stages they are.
        references: with the folder of each stage.
        names: stages that are wanted.
        force: stages that run again in any case.
    """
    return [
        name
        for name in names
        if name in force or not _is_finished(references.stages[name], recipe.stages[name])
    ]


def _is_finished(folder: Path, stage: Stage) -> bool:
    """Whether the folder has this stage's settings; a change of its inputs leaves its size."""
    if not (folder / MANIFEST).is_file():
        return False
    return load_manifest(folder).config == stage.to_json()


def check_memory(
    recipe: Recipe,
    references: References,
    names: Sequence[str],
    console: Console,
    registry: Registry = STAGES,
) -> None:
    """Refuses stages that cannot fit into memory, or warns of them, as the recipe says.

    Args:
        recipe: with its `memory_check`.
        references: of the run.
        names: stages that are going to run.
        console: hears warnings.
        registry: stages of other functions than the shipped ones need nobody knows what.

    Raises:
        ConfigError: the predicted peak exceeds the available memory.
    """
    planned = [
        name
        for name in names
        if (kind := recipe.stages[name].kind) in MODEL_KINDS
        and registry.modules.get(kind) == STAGES.modules[kind]
    ]
    if recipe.memory_check == "off" or not planned:
        return
    verdict = _ask_child(recipe, references, planned, registry)
    if isinstance(verdict, str):
        _say(console, f"memory was not checked: {verdict}")
    elif not verdict.fits and recipe.memory_check == "refuse":
        raise ConfigError(
            f"{refusal(verdict)}\ntutelage plan shows how this was counted; --memory-check warn "
            "runs it all the same"
        )
    elif not verdict.fits:
        _say(console, f"warning: {refusal(verdict)}")


def check_memory_of_stage(
    stage: Stage, references: References, console: Console, registry: Registry = STAGES
) -> None:
    """Warns of a stage that is run by itself and cannot fit.

    It has no recipe in which to say that it is to be run all the same.
    """
    # Not validated: what its references name are files, which may be called like the stage.
    recipe = Recipe.model_construct(name=stage.kind, memory_check="warn", stages={ALONE: stage})
    check_memory(recipe, references, [ALONE], console, registry)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _ask_child(
    recipe: Recipe, references: References, names: Sequence[str], registry: Registry
) -> Verdict | str:
    """The verdict, or why there is none."""
    context = start_server(registry.preload)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_judge, args=(recipe, references, names, sender), daemon=True)
    with without_main():
        process.start()
    sender.close()
    try:
        answer: Verdict | str = receiver.recv()
    except EOFError:
        answer = "the process that counts the models ended without an answer"
    finally:
        receiver.close()
        process.join()
    return answer


def _judge(
    recipe: Recipe, references: References, names: Sequence[str], sender: Connection
) -> None:
    """The child's whole life."""
    answer: Verdict | str
    try:
        answer = judge(recipe, references, names, present_device(measure=False))
    except TutelageError as error:
        answer = str(error)
    except Exception as error:
        answer = f"unexpected {type(error).__name__}: {error}"
    sender.send(answer)
    sender.close()
