"""How many rows a stage will read, and how long they are, before any of them has been made.

    file ──first rows──────────────────> lengths; its size ──> count
    stage of the recipe ──its settings──> count; lengths of what it reads, or of its world

Lengths are in characters: no tokenizer exists yet where a recipe trains one. What nothing is known
of is taken at a share of its limit.
"""

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from tutelage.config import (
    ArithmeticStage,
    ChooseStage,
    HelpdeskStage,
    LabelStage,
    OpeningsStage,
    PairsStage,
    Recipe,
    SampleStage,
    SelectStage,
    SFTStage,
    SplitStage,
)
from tutelage.errors import DataError
from tutelage.pipeline.references import References
from tutelage.worlds.helpdesk import WorldSpec, demonstrations, prompts, recall_documents

__all__ = ["SHARE_OF_LIMIT", "Rows", "answer_of", "characters_per_token", "rows_of", "tokens_of"]

SHARE_OF_LIMIT = 0.5
"""Of the longest row, where nothing is known of typical ones."""

_LOOKED_AT = 200
"""Rows of a file or a world whose lengths are averaged."""
_WORD = 6.0
"""Characters of a word with its space."""


@dataclass(frozen=True)
class Rows:
    """Rows of a file, on average."""

    count: int | None = None
    """Rows, or comparisons; None where nobody can say."""
    prompt: float | None = None
    """Characters of what is read before an answer."""
    answer: float | None = None
    """Characters of an answer, or of a text."""
    answers: float = 1.0
    """To a prompt."""
    pairs: float = 1.0
    """Comparisons of the answers to a prompt."""
    has_facts: bool = False
    """Training on them stops early."""


def characters_per_token(vocabulary: int) -> float:
    """On average, of English: 3.0 to 3.5 were counted with 1,024 tokens, 4 to 4.5 with 50,000."""
    return 3.3 if vocabulary < 8192 else 4.2


def tokens_of(rows: Rows, vocabulary: int, prompt: int, answer: int) -> tuple[float, float]:
    """Tokens of a typical prompt and a typical answer.

    Args:
        rows: what is known of them.
        vocabulary: tokens that the model knows.
        prompt: most tokens of a prompt.
        answer: most tokens of an answer.
    """
    per_token = characters_per_token(vocabulary)

    def typical(characters: float | None, limit: int) -> float:
        if characters is None:
            return max(1.0, SHARE_OF_LIMIT * limit)
        return min(float(limit), max(1.0, characters / per_token))

    return typical(rows.prompt, prompt), typical(rows.answer, answer)


def rows_of(
    recipe: Recipe, references: References, wanted: Sequence[str], default: str
) -> Rows | None:
    """The rows of all that is referred to, as one; None where nothing is known of them.

    Args:
        recipe: its stages make rows.
        references: of its inputs.
        wanted: references to files or stages.
        default: file of a stage that is meant where a reference names none.
    """
    return _together([_rows(recipe, references, name, default) for name in wanted])


def _rows(recipe: Recipe, references: References, reference: str, default: str) -> Rows | None:
    first, _, rest = reference.partition("/")
    file = rest or default
    match recipe.stages.get(first):
        case None:
            return _outside(references, reference)
        case HelpdeskStage() as stage:
            return _of_world(stage, file.removesuffix(".jsonl"))
        case ArithmeticStage() as stage:
            return _of_arithmetic(stage, file.removesuffix(".jsonl"))
        case SplitStage() as stage:
            share = stage.parts.get(file.removesuffix(".jsonl"))
            return _part(rows_of(recipe, references, stage.data, default), share)
        case PairsStage() as stage:
            texts = rows_of(recipe, references, stage.data, default)
            answer = min(texts.answer, stage.max_words * _WORD) if texts and texts.answer else None
            return Rows(stage.count, _WORD, answer, answers=2.0)
        case OpeningsStage() as stage:
            count = stage.test if file.startswith("test") else stage.train
            return Rows(count, fmean(stage.words) * _WORD)
        case SampleStage() | LabelStage() | ChooseStage() | SelectStage() as stage:
            return _of_answers(recipe, references, stage, file)
    return None


def _of_answers(
    recipe: Recipe,
    references: References,
    stage: SampleStage | LabelStage | ChooseStage | SelectStage,
    file: str,
) -> Rows | None:
    """What a stage makes of completions, or the completions themselves."""
    match stage:
        case SampleStage():
            return _sampled(recipe, references, stage)
        case ChooseStage():
            return _chosen(recipe, references, stage, file)
        case LabelStage(comparisons=str(built)):
            rows = rows_of(recipe, references, [built], f"{stage.asked}.jsonl")
            return None if rows is None else replace(rows, count=_least(rows.count, stage.limit))
        case LabelStage():
            samples = rows_of(recipe, references, [stage.samples or ""], "samples.jsonl")
            return _compared(stage, samples or Rows(answers=2.0))
        case SelectStage():
            found = rows_of(recipe, references, [stage.samples], "samples.jsonl") or Rows()
            return replace(found, count=_least(found.count, stage.limit), answers=1.0)


def _outside(references: References, reference: str) -> Rows | None:
    try:
        return _together([_of_file(path) for path in references.outside(reference)])
    except DataError:
        return None


def _part(whole: Rows | None, share: float | None) -> Rows | None:
    if whole is None or whole.count is None or share is None:
        return whole
    return replace(whole, count=round(share * whole.count))


def _sampled(recipe: Recipe, references: References, stage: SampleStage) -> Rows:
    asked = rows_of(recipe, references, [stage.prompts], "prompts.jsonl") or Rows()
    return replace(
        asked,
        count=_least(asked.count, stage.limit),
        answer=answer_of(recipe, references, stage.model),
        answers=float(stage.sampling.samples_per_prompt),
    )


def _chosen(recipe: Recipe, references: References, stage: ChooseStage, file: str) -> Rows | None:
    """As many comparisons as the budget pays for; of the judge's answers, all that are there."""
    if file.startswith("answered"):
        return rows_of(recipe, references, stage.judged, "preferences.jsonl")
    samples = rows_of(recipe, references, stage.samples, "samples.jsonl") or Rows()
    people = int(stage.budget * stage.people / stage.costs.people)
    left = (stage.budget - people * stage.costs.people) // stage.costs.judge
    return replace(samples, count=people if file.startswith("people") else left, answers=2.0)


def _compared(stage: LabelStage, samples: Rows) -> Rows:
    possible = samples.answers * (samples.answers - 1) / 2
    pairs = max(1.0, min(stage.pairs_per_prompt, possible))
    count = None if samples.count is None else round(pairs * samples.count)
    used = min(samples.answers, 2 * pairs)
    return replace(samples, count=_least(count, stage.limit), answers=used, pairs=pairs)


def answer_of(recipe: Recipe, references: References, model: str) -> float | None:
    """Characters of the demonstrations that a model imitates.

    None for others: nothing tells how long the answers are that a reward has taught.
    """
    stage = recipe.stages.get(model.partition("/")[0])
    if not isinstance(stage, SFTStage):
        return None
    told = rows_of(recipe, references, stage.data, "sft.jsonl")
    return None if told is None else told.answer


def _of_world(stage: HelpdeskStage, file: str) -> Rows | None:
    spec = {"nano": WorldSpec.nano, "micro": WorldSpec.micro}[stage.preset]()
    seen = _LOOKED_AT
    if file == "documents":
        made: list[Any] = [
            {"messages": [message.to_json() for message in document.messages], "facts": 1}
            for document in recall_documents(spec, seen, 0)
        ]
        return replace(_averaged(made), count=stage.documents)
    if file == "sft":
        made = [row.to_json() for row in demonstrations(spec, seen, 0)]
        return replace(_averaged(made), count=stage.demonstrations)
    count = {
        "train": stage.train_prompts,
        "rl": stage.rl_prompts,
        "held_out": stage.held_out_prompts,
        "test": stage.test_prompts,
    }.get(file)
    if count is None:
        return None
    made = [row.to_json() for row in prompts(spec, "train", min(seen, count), 0)]
    return replace(_averaged(made), count=count)


def _of_arithmetic(stage: ArithmeticStage, file: str) -> Rows | None:
    digits = float(stage.digits)
    asked, result = 2 * digits + 2, digits + 1
    made = {
        "documents": Rows(stage.documents, 7 * (asked + result) + asked, result, has_facts=True),
        "sft": Rows(stage.demonstrations, asked, result),
        "rl": Rows(stage.rl_prompts, asked),
        "held_out": Rows(stage.held_out_prompts, asked),
        "test": Rows(stage.test_prompts, asked),
    }
    return made.get(file)


def _of_file(path: Path) -> Rows | None:
    """From the first rows; how many there are, from their size and the file's."""
    if not path.is_file():
        return None
    lines: list[bytes] = []
    with suppress(OSError, EOFError):
        if path.suffix == ".gz":
            with gzip.open(path) as packed:
                lines = list(islice(packed, _LOOKED_AT))
                count = len(lines) + sum(1 for _ in packed)
        else:
            with path.open("rb") as plain:
                lines = list(islice(plain, _LOOKED_AT))
            count = round(path.stat().st_size / max(1.0, fmean(map(len, lines)))) if lines else 0
    rows = []
    for line in lines:
        with suppress(ValueError):
            rows.append(json.loads(line))
    found = [row for row in rows if isinstance(row, dict)]
    return replace(_averaged(found), count=count) if found else None


def _averaged(rows: Sequence[Mapping[str, Any]]) -> Rows:
    """What rows of any schema hold, as `data.schema` lists them."""
    asked = [_prompt(row) for row in rows]
    answers = [_answers(row) for row in rows]
    lengths = [float(len(text)) for texts in answers for text in texts]
    return Rows(
        prompt=fmean(asked),
        answer=fmean(lengths) if lengths else None,
        answers=max(1.0, fmean(map(len, answers))),
        has_facts=any("facts" in row for row in rows),
    )


def _prompt(row: Mapping[str, Any]) -> float:
    if isinstance(messages := row.get("messages"), list):
        return float(sum(map(len, _contents(messages[:-1]))))
    prompt = row.get("prompt", "")
    return float(len(prompt) if isinstance(prompt, str) else sum(map(len, _contents(prompt))))


def _answers(row: Mapping[str, Any]) -> list[str]:
    if isinstance(messages := row.get("messages"), list):
        return list(_contents(messages[-1:]))
    completions = row.get("completions")
    if isinstance(completions, list):
        return [str(each["text"] if isinstance(each, dict) else each) for each in completions]
    keys = ("chosen", "rejected", "a", "b", "text")
    return [row[key] for key in keys if isinstance(row.get(key), str)]


def _contents(messages: Any) -> Iterable[str]:
    if isinstance(messages, list):
        for message in messages:
            if isinstance(message, dict):
                yield str(message.get("content", ""))


def _together(parts: Iterable[Rows | None]) -> Rows | None:
    """Several files read one after the other; lengths are those of the first that is known."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    counts = [part.count for part in known]
    total = None if None in counts else sum(count for count in counts if count is not None)
    return replace(known[0], count=total)


def _least(count: int | None, limit: int | None) -> int | None:
    known = [number for number in (count, limit) if number is not None]
    return min(known) if known else None
