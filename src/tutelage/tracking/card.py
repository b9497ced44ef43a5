"""`README.md` of a model folder: what the model is, how it was made, how good it is.

The YAML head follows the model hub's form (Mitchell et al. 2019, arXiv:1810.03993,
for what a card owes its reader).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.tracking.atomic import write_text_atomically
from tutelage.tracking.evaluation_record import EvaluationRecord
from tutelage.tracking.format import interval, number, one_line
from tutelage.tracking.verdict import verdicts

__all__ = ["ModelCard", "render_model_card", "write_model_card"]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What goes onto the card."""

    name: str
    description: str
    """One or two sentences: what the model does and for whom."""
    base_model: str | None = None
    """Hub id of the model training started from; None for one trained from scratch."""
    license: str | None = None
    datasets: Sequence[str] = ()
    tags: Sequence[str] = ()
    training: Mapping[str, str] = field(default_factory=dict)
    """Stage by stage, what was done: `{"SFT": "300 steps on 8,000 demonstrations"}`."""
    limitations: Sequence[str] = ()
    evaluation: Mapping[str, Any] | None = None
    """The content of `evaluation.json`."""
    model: str = ""
    """Which of the evaluation's models this is."""


def render_model_card(card: ModelCard) -> str:
    """The card as Markdown with its YAML head."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        base_model=card.base_model,
        license=card.license,
        datasets=list(card.datasets) or None,
        tags=["tutelage", *card.tags],
        library_name="transformers",
        pipeline_tag="text-generation",
        language="en",
    )
    parts = [f"---\n{data.to_yaml()}\n---", f"# {_inline(card.name)}", card.description]
    parts.append(_USE)
    if card.training:
        steps = [f"{i}. **{_inline(k)}**: {v}" for i, (k, v) in enumerate(card.training.items(), 1)]
        parts += ["## Training", "\n".join(steps)]
    if card.evaluation:
        parts += _evaluation(EvaluationRecord.from_json(card.evaluation), card.model)
    if card.limitations:
        parts += ["## Limitations", "\n".join(f"- {text}" for text in card.limitations)]
    return "\n\n".join(parts) + "\n"


def write_model_card(folder: Path, card: ModelCard) -> Path:
    """Writes `README.md` into a model folder and returns its path.

    Raises:
        CheckpointError: it cannot be written.
    """
    path = folder / "README.md"
    write_text_atomically(path, render_model_card(card))
    return path


_USE = """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```"""


def _evaluation(record: EvaluationRecord, model: str) -> list[str]:
    rows = [
        ["", *(_inline(column.label) for column in record.models)],
        ["---", *("---:" for _ in record.models)],
    ]
    for measure in record.measures:
        found = [column.measures.get(measure.key) for column in record.models]
        decimals = record.decimals(measure)
        cells = [
            f"{number(it.mean, measure.unit, decimals)} "
            f"{interval(it.low, it.high, measure.unit, decimals)}"
            if it
            else "n/a"
            for it in found
        ]
        rows.append([_inline(measure.label), *cells])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    parts = ["## Evaluation", table, "Mean with its 95 % interval."]
    for verdict in verdicts(record):
        if verdict.model == model:
            parts.append(f"**{verdict.title}.** {' '.join(verdict.sentences)}")
    return parts


def _inline(text: str) -> str:
    return one_line(text).replace("|", "\\|")
