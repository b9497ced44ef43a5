"""Writes the corpora and prompts of the helpdesk world."""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.config import HelpdeskStage
from tutelage.data.jsonl import write_jsonl
from tutelage.pipeline.context import StageContext
from tutelage.records import Demonstration, Prompt
from tutelage.worlds.helpdesk import (
    RecallDocument,
    WorldSpec,
    demonstrations,
    dialogue_demonstrations,
    dialogue_prompts,
    prompts,
    recall_documents,
)

__all__ = ["run", "world_spec"]


def world_spec(preset: str) -> WorldSpec:
    """The world that a recipe's `preset` names."""
    return {"nano": WorldSpec.nano, "micro": WorldSpec.micro}[preset]()


def run(config: HelpdeskStage, context: StageContext) -> dict[str, float]:
    """Writes documents, demonstrations and four disjoint sets of prompts."""
    spec, seed = world_spec(config.preset), context.seed
    files: dict[str, Sequence[Mapping[str, Any]]] = {
        "documents": [
            _document_row(document) for document in recall_documents(spec, config.documents, seed)
        ],
        "sft": [row.to_json() for row in _demonstrations(spec, config, seed)],
        "train": [row.to_json() for row in _train_prompts(spec, config, seed)],
        "rl": [row.to_json() for row in prompts(spec, "rl", config.rl_prompts, seed)],
        "held_out": [
            row.to_json() for row in prompts(spec, "held_out", config.held_out_prompts, seed)
        ],
        "test": [row.to_json() for row in prompts(spec, "test", config.test_prompts, seed)],
    }
    for step, (name, rows) in enumerate(files.items()):
        write_jsonl(context.folder / f"{name}.jsonl", rows)
        context.progress.step(step + 1, len(files))
    return {name: float(len(rows)) for name, rows in files.items()}


def _demonstrations(spec: WorldSpec, config: HelpdeskStage, seed: int) -> list[Demonstration]:
    if config.turns == 1:
        return demonstrations(spec, config.demonstrations, seed)
    return dialogue_demonstrations(spec, config.demonstrations, seed, config.turns)


def _train_prompts(spec: WorldSpec, config: HelpdeskStage, seed: int) -> list[Prompt]:
    if config.turns == 1:
        return prompts(spec, "train", config.train_prompts, seed)
    return dialogue_prompts(spec, "train", config.train_prompts, seed, config.turns)


def _document_row(document: RecallDocument) -> dict[str, Any]:
    return {
        "id": document.id,
        "messages": [message.to_json() for message in document.messages],
        "facts": [list(fact) for fact in document.facts],
        "source": "helpdesk",
    }
