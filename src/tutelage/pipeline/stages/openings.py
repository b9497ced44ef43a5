"""Makes prompts of the first words of texts, to be continued by the policy.

    texts ──shuffled──> opening of 3 to 8 words ──> test.jsonl
                                                └─> train.jsonl, from other texts

Ziegler et al. 2019 (arXiv:1909.08593) section 3.1 continue excerpts of books in the same way.
"""

import random
from collections.abc import Iterator, Sequence

from tutelage.config import OpeningsStage
from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import load_texts
from tutelage.errors import DataError
from tutelage.pipeline.context import StageContext
from tutelage.records import Message, Prompt

__all__ = ["run"]


def run(config: OpeningsStage, context: StageContext) -> dict[str, float]:
    """Writes prompts for training and for the test; no two begin in the same way."""
    fewest, most = config.words
    if fewest > most:
        raise DataError(f"words is {list(config.words)}, expected the fewest before the most")
    paths = context.resolve_all(config.data, "texts.jsonl")
    texts = [text for path in paths for text in load_texts(path)]
    openings = list(_openings(texts, fewest, most, random.Random(context.seed)))
    wanted = config.test + config.train
    if len(openings) < wanted:
        raise DataError(
            f"{len(texts)} texts have {len(openings)} different openings of {fewest} to {most} "
            f"words, expected {config.train} for train and {config.test} for test: give more "
            "texts or lower train"
        )
    _write(context, "test", openings[: config.test])
    _write(context, "train", openings[config.test : wanted])
    return {"train": float(config.train), "test": float(config.test), "texts": float(len(texts))}


def _openings(texts: Sequence[str], fewest: int, most: int, source: random.Random) -> Iterator[str]:
    """One opening per text that goes on after it; each opening once."""
    seen: set[str] = set()
    for text in source.sample(texts, len(texts)):
        words = text.split(maxsplit=most)
        opening = " ".join(words[: source.randint(fewest, most)])
        if len(words) > most and opening.casefold() not in seen:
            seen.add(opening.casefold())
            yield opening


def _write(context: StageContext, name: str, openings: Sequence[str]) -> None:
    prompts = [
        Prompt(f"{name}-{i:05}", (Message("user", opening),), mode="continuation")
        for i, opening in enumerate(openings)
    ]
    write_jsonl(context.folder / f"{name}.jsonl", [prompt.to_json() for prompt in prompts])
