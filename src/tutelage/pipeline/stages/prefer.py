"""Judges pairs of answers under a constitution's principles, and writes preferences.

samples ──pairs──> comparisons ──some principles each, both orders──> preferences.jsonl
                                     └── about which none could tell ──> unscorable.jsonl
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean

from tutelage.config import PreferStage
from tutelage.data.jsonl import read_jsonl
from tutelage.data.loaders import load_preferences, load_samples
from tutelage.errors import DataError
from tutelage.feedback.gather import pairs_of_samples
from tutelage.judging.constitution import (
    Constitution,
    PrincipleJudge,
    Unscorable,
    Writer,
    load_constitution,
    prefer,
    written_judge,
)
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.writing import (
    constitution_record,
    open_writer,
    require_few_failures,
)
from tutelage.records import Preference
from tutelage.tracking.atomic import write_json_atomically
from tutelage.tracking.sinks import JsonLinesFile
from tutelage.worlds.helpdesk import HelpdeskReviser

__all__ = ["run"]

_SAME = 1e-9
"""The mean of 0.3 and 0.7 is a tie, whatever the last bit says."""


def run(config: PreferStage, context: StageContext) -> dict[str, float]:
    """Judges batch by batch; what is judged stays judged."""
    constitution = load_constitution(config.constitution)
    assert config.samples is not None, "the stage is refused without"
    samples = load_samples(context.resolve(config.samples, "samples.jsonl"), config.limit)
    pairing = pairs_of_samples(samples, count=config.pairs_per_prompt, seed=context.seed)
    comparisons = pairing.comparisons
    done = {"comparisons": 0, "unscorable": 0}
    files = (context.folder / "preferences.jsonl", context.folder / "unscorable.jsonl")
    with (
        open_writer(config, constitution, context) as (writer, source),
        context.checkpoints.track(generator=source, done=done) as checkpoints,
        closing(JsonLinesFile(files[0])) as judged,
        closing(JsonLinesFile(files[1])) as unscorable,
    ):
        judge_of = _judge_of(writer, constitution)
        for start in range(done["comparisons"], len(comparisons), config.batch):
            found = prefer(
                judge_of,
                constitution,
                comparisons[start : start + config.batch],
                annotator=f"{writer.name} with {constitution.name}",
                principles=config.principles,
                certainty=config.certainty,
                seed=context.seed,
            )
            for each in found:
                _append(each, judged, unscorable)
            done["comparisons"] += len(found)
            done["unscorable"] += sum(isinstance(each, Unscorable) for each in found)
            _require_few_unscorable(files[1], done["unscorable"], len(comparisons), config)
            context.progress.step(done["comparisons"], len(comparisons))
            if config.writer == "endpoint":
                # What was paid for is worth a checkpoint.
                checkpoints.save(done["comparisons"])
            checkpoints.boundary(done["comparisons"])
    if done["unscorable"] == len(comparisons):
        raise DataError(f"none of {len(comparisons)} comparisons could be judged")
    preferences = load_preferences(files[0])
    record = {
        **constitution_record(constitution, writer),
        "principles": config.principles,
        "by_principle": _by_principle(preferences),
    }
    write_json_atomically(context.folder / "principles.json", record)
    return {
        "preferences": float(len(preferences)),
        "unscorable": float(done["unscorable"]),
        "identical_pairs": float(pairing.num_identical),
        "ties": fmean(_tied(row.p_a) for row in preferences),
        "order_mattered": _order_mattered(preferences),
    }


def _judge_of(writer: Writer, constitution: Constitution) -> PrincipleJudge:
    if isinstance(writer, HelpdeskReviser):
        return lambda principle: writer.judge(principle.category)
    return written_judge(writer, constitution)


def _append(
    found: Preference | Unscorable, judged: JsonLinesFile, unscorable: JsonLinesFile
) -> None:
    if isinstance(found, Preference):
        judged.append(found.to_json())
    else:
        row = {**found.comparison.to_json(), "principles": list(found.principles)}
        unscorable.append(row)


def _require_few_unscorable(path: Path, count: int, total: int, config: PreferStage) -> None:
    if count > config.max_failed_share * total:
        ids = [str(row["id"]) for _, row in read_jsonl(path)]
        reasons = [f"{name}: no principle gave a readable verdict in both orders" for name in ids]
        require_few_failures(reasons, total, config.max_failed_share)


def _by_principle(preferences: Sequence[Preference]) -> dict[str, dict[str, float]]:
    """Of each principle, how often it was asked and how often it told the answers apart."""
    found: dict[str, list[float]] = {}
    for preference in preferences:
        for name, p_a in preference.criteria.items():
            found.setdefault(name, []).append(p_a)
    return {
        name: {"asked": len(asked), "decided": fmean(not _tied(p_a) for p_a in asked)}
        for name, asked in sorted(found.items())
    }


def _order_mattered(preferences: Sequence[Preference]) -> float:
    """Share of the preferences whose probability depends on which answer was shown first."""
    orders = [row.orders for row in preferences if row.orders is not None]
    return fmean(abs(first - second) > _SAME for first, second in orders)


def _tied(p_a: float) -> bool:
    return abs(p_a - 0.5) <= _SAME
