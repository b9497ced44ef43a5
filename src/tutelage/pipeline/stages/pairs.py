"""Builds preferences from labelled texts: of two texts that begin alike, the positive one wins.

    "a gripping story ."   label 1 ─┐  both begin with "a"
    "a tired sequel ."     label 0 ─┴─> prompt "a", chosen " gripping story .",
                                        rejected " tired sequel ."

A comparison needs two answers to one prompt. Texts that share their first word give one: the
prompt is the shared word, to be continued, and prompt and answer together are exactly the text
that people labelled. The shared word itself tells nothing about the label. No text is in two
pairs, so holding out pairs holds out texts.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tutelage.config import PairsStage
from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import LabelledText, load_labelled
from tutelage.data.text import normalize
from tutelage.errors import DataError
from tutelage.pipeline.context import StageContext
from tutelage.records import Comparison, Message, Preference, Prompt
from tutelage.tracking.atomic import write_json_atomically

__all__ = ["run"]

Pair = tuple[LabelledText, LabelledText]
"""The positive text and the negative one."""


def run(config: PairsStage, context: StageContext) -> dict[str, float]:
    """Writes the preferences, and beside them the texts that are in none."""
    texts, repeated = _different(context.resolve_all(config.data, "labelled.jsonl"))
    pairs = _pair(texts, context.seed)
    if len(pairs) < config.count:
        raise DataError(
            f"{len(texts)} labelled texts give {len(pairs)} pairs of a positive and a negative "
            f"one that begin with the same word, expected {config.count}: give more texts or "
            f"set count to {len(pairs)} or less"
        )
    chosen = pairs[: config.count]
    preferences = [_preference(pair, config.max_words) for pair in chosen]
    write_jsonl(context.folder / "preferences.jsonl", [row.to_json() for row in preferences])
    paired = {text.id for pair in chosen for text in pair}
    unpaired = [_row(text) for text in texts if text.id not in paired]
    write_jsonl(context.folder / "unpaired.jsonl", unpaired)
    summary = _summary(preferences)
    write_json_atomically(context.folder / "labels.json", summary)
    return {
        "preferences": float(len(preferences)),
        "unpaired": float(len(unpaired)),
        "repeated": float(repeated),
        "prefers_longer": summary["prefers_longer"],
    }


def _different(paths: Sequence[Path]) -> tuple[list[LabelledText], int]:
    """All texts, each once however often it occurs, and the number left out for that."""
    texts: dict[str, LabelledText] = {}
    repeated = 0
    for path in paths:
        for text in load_labelled(path):
            if type(text.label) is not int or text.label not in (0, 1):
                raise DataError(
                    f"{path}: row {text.id!r} has the label {text.label!r}, expected 0 for a "
                    "negative text or 1 for a positive one"
                )
            repeated += texts.setdefault(normalize(text.text).casefold(), text) is not text
    return list(texts.values()), repeated


def _pair(texts: Iterable[LabelledText], seed: int) -> list[Pair]:
    """As many pairs as there are, in random order."""
    groups: dict[str, tuple[list[LabelledText], list[LabelledText]]] = defaultdict(lambda: ([], []))
    for text in texts:
        words = text.text.split(maxsplit=1)
        if len(words) == 2:
            groups[words[0]][text.label == 0].append(text)
    source = random.Random(seed)
    pairs: list[Pair] = []
    for positive, negative in groups.values():
        source.shuffle(positive)
        source.shuffle(negative)
        pairs += zip(positive, negative, strict=False)
    source.shuffle(pairs)
    return pairs


def _preference(pair: Pair, max_words: int) -> Preference:
    positive, negative = (text.text.split()[:max_words] for text in pair)
    prompt = Prompt(
        id=f"{pair[0].id}+{pair[1].id}",
        messages=(Message("user", positive[0]),),
        source=pair[0].source,
        mode="continuation",
    )
    answers = (" " + " ".join(words[1:]) for words in (positive, negative))
    return Preference(Comparison(prompt, *answers), 1.0, annotator=pair[0].source or "labels")


def _row(text: LabelledText) -> dict[str, Any]:
    return {"id": text.id, "text": text.text, "label": text.label, "source": text.source}


def _summary(preferences: Sequence[Preference]) -> dict[str, Any]:
    """Who labelled, and whether the longer text tends to be the positive one."""
    lengths = [
        (len(row.comparison.a.split()), len(row.comparison.b.split())) for row in preferences
    ]
    unequal = [a > b for a, b in lengths if a != b]
    return {
        "annotators": dict(Counter(row.annotator for row in preferences)),
        "cost": 0.0,
        "prefers_longer": sum(unequal) / max(1, len(unequal)),
        "agreement": {},
    }
