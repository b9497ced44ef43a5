"""Writes the texts and prompts of the arithmetic world."""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.config import ArithmeticStage
from tutelage.data.jsonl import write_jsonl
from tutelage.pipeline.context import StageContext
from tutelage.worlds.arithmetic import demonstrations, documents, prompts

__all__ = ["run"]


def run(config: ArithmeticStage, context: StageContext) -> dict[str, float]:
    """Writes documents, demonstrations and three disjoint sets of prompts."""
    digits, seed = config.digits, context.seed
    files: dict[str, Sequence[Mapping[str, Any]]] = {
        "documents": [
            {
                "id": document.id,
                "messages": [message.to_json() for message in document.messages],
                "facts": [list(fact) for fact in document.facts],
                "source": "arithmetic",
            }
            for document in documents(digits, config.documents, seed)
        ],
        "sft": [row.to_json() for row in demonstrations(digits, config.demonstrations, seed)],
        "rl": [row.to_json() for row in prompts("rl", digits, config.rl_prompts, seed)],
        "held_out": [
            row.to_json() for row in prompts("held_out", digits, config.held_out_prompts, seed)
        ],
        "test": [row.to_json() for row in prompts("test", digits, config.test_prompts, seed)],
    }
    for step, (name, rows) in enumerate(files.items()):
        write_jsonl(context.folder / f"{name}.jsonl", rows)
        context.progress.step(step + 1, len(files))
    return {name: float(len(rows)) for name, rows in files.items()}
