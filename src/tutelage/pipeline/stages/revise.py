"""Has answers criticised and revised under a constitution, and writes them as demonstrations.

samples ─┐
prompts ─┴─> first answers ──critique, revise, as often as asked──> transcripts.jsonl
                                                                      └──> sft.jsonl ──> stage sft
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tutelage.config import ReviseStage
from tutelage.data.jsonl import read_jsonl, write_jsonl
from tutelage.data.loaders import load_prompts, load_samples
from tutelage.errors import DataError
from tutelage.judging.constitution import (
    Transcript,
    Writer,
    answer_prompts,
    load_constitution,
    revise,
)
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.writing import (
    constitution_record,
    open_writer,
    require_few_failures,
)
from tutelage.records import Prompt
from tutelage.tracking.atomic import write_json_atomically
from tutelage.tracking.sinks import JsonLinesFile

__all__ = ["run"]

_TRANSCRIPTS = "transcripts.jsonl"


def run(config: ReviseStage, context: StageContext) -> dict[str, float]:
    """Revises batch by batch; what is finished stays finished."""
    constitution = load_constitution(config.constitution)
    todo = _first_answers(config, context)
    done = {"prompts": 0}
    path = context.folder / _TRANSCRIPTS
    with (
        open_writer(config, constitution, context) as (writer, source),
        context.checkpoints.track(generator=source, done=done) as checkpoints,
        closing(JsonLinesFile(path)) as rows,
    ):
        about = constitution_record(constitution, writer)
        reasons = _failures(_read(path)) if done["prompts"] else []
        for start in range(done["prompts"], len(todo), config.batch):
            batch = _answered(writer, todo[start : start + config.batch])
            batch = revise(writer, constitution, batch, rounds=config.rounds, seed=context.seed)
            for transcript in batch:
                rows.append({**transcript.to_json(), **about})
            done["prompts"] += len(batch)
            reasons += _failures(batch)
            require_few_failures(reasons, len(todo), config.max_failed_share)
            context.progress.step(done["prompts"], len(todo))
            if config.writer == "endpoint":
                # What was paid for is worth a checkpoint.
                checkpoints.save(done["prompts"])
            checkpoints.boundary(done["prompts"])
    return _finish(_read(path), about, context)


def _first_answers(config: ReviseStage, context: StageContext) -> list[Prompt | Transcript]:
    """Prompts that are still to be answered, or those whose first answers are known."""
    if config.prompts is not None:
        prompts = load_prompts(context.resolve(config.prompts, "prompts.jsonl"), config.limit)
        _require_chats(prompts)
        return [*prompts]
    assert config.samples is not None, "the stage is refused without"
    samples = load_samples(context.resolve(config.samples, "samples.jsonl"), config.limit)
    _require_chats([row.prompt for row in samples])
    found: list[Prompt | Transcript] = []
    for row in samples:
        answer = row.completions[0]
        empty = "" if answer.strip() else "first answer: nothing was written"
        found.append(Transcript(row.prompt, answer, failure=empty))
    return found


def _require_chats(prompts: Sequence[Prompt]) -> None:
    for prompt in prompts:
        if prompt.mode == "continuation":
            raise DataError(
                f"prompt {prompt.id!r} is a text to be continued, and a critique needs a "
                "conversation: give chat prompts"
            )


def _answered(writer: Writer, rows: Sequence[Prompt | Transcript]) -> list[Transcript]:
    prompts = [row for row in rows if isinstance(row, Prompt)]
    known = [row for row in rows if isinstance(row, Transcript)]
    return [*known, *answer_prompts(writer, prompts)]


def _read(path: Path) -> list[Transcript]:
    return [Transcript.from_json(row) for _, row in read_jsonl(path)]


def _failures(transcripts: Sequence[Transcript]) -> list[str]:
    return [f"{each.prompt.id}: {each.failure}" for each in transcripts if each.failure]


def _finish(
    transcripts: Sequence[Transcript], about: dict[str, str], context: StageContext
) -> dict[str, float]:
    """Writes the demonstrations and what was done under each principle."""
    finished = [each for each in transcripts if not each.failure]
    failed = len(transcripts) - len(finished)
    if not finished:
        raise DataError(f"none of {len(transcripts)} answers could be revised: see {_TRANSCRIPTS}")
    write_jsonl(context.folder / "sft.jsonl", [_row(each, about) for each in finished])
    asked: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    for transcript in finished:
        before = transcript.answer
        for revision in transcript.revisions:
            asked[revision.principle] += 1
            changed[revision.principle] += revision.text.split() != before.split()
            before = revision.text
    principles = {
        name: {"asked": count, "changed": changed[name]} for name, count in asked.most_common()
    }
    record = {**about, "answers": len(transcripts), "failed": failed, "principles": principles}
    write_json_atomically(context.folder / "revisions.json", record)
    if failed:
        context.progress.message(f"{failed} of {len(transcripts)} answers could not be revised")
    return {
        "demonstrations": float(len(finished)),
        "failed": float(failed),
        "changed": sum(each.changed for each in finished) / len(finished),
        "words_before": _words(each.answer for each in finished) / len(finished),
        "words_after": _words(each.text for each in finished) / len(finished),
    }


def _row(transcript: Transcript, about: dict[str, str]) -> dict[str, Any]:
    """The demonstration, and where it comes from."""
    principles = [revision.principle for revision in transcript.revisions]
    return {**transcript.demonstration().to_json(), **about, "principles": principles}


def _words(texts: Iterable[str]) -> int:
    return sum(len(text.split()) for text in texts)
