"""Several models on the same prompts: measures with intervals, paired differences, samples.

The result is what `evaluation.json` holds; `docs/run-folder.md` describes the form.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tutelage.evaluation.intervals import bootstrap_difference, bootstrap_mean
from tutelage.evaluation.rater import Answer, Measure, Rater
from tutelage.records import Prompt

__all__ = ["BASE_MEASURES", "Answers", "checkpoints", "compare"]

BASE_MEASURES = (
    Measure("length", "Length", "tokens", None, "Tokens per answer."),
    Measure(
        "ended",
        "Ends by itself",
        "share",
        "higher",
        "Answers that the model ended; the others ran into the token limit.",
    ),
    Measure(
        "kl",
        "KL to the baseline",
        "nats",
        None,
        "log pi / pi_baseline of a whole answer, mean over answers.",
    ),
)
DRAWN = Measure(
    "drawn",
    "Tokens per answer",
    "",
    None,
    "Tokens drawn for an answer, those of answers that were not chosen included.",
    "cost",
)
PROXY = Measure(
    "proxy",
    "Proxy reward",
    "sigma",
    "higher",
    "Score of the reward model, in standard deviations over the baseline's answers.",
    "proxy",
)


@dataclass(frozen=True)
class Answers:
    """One model's answers to the evaluation's prompts, in the prompts' order."""

    name: str
    stage: str
    answers: Sequence[Answer]
    lengths: Sequence[int]
    divergence: Sequence[float]
    """log pi - log pi_baseline of each answer."""
    proxy: Sequence[float | None] | None = None
    drawn: Sequence[int] | None = None
    """Tokens drawn for each answer, where some are chosen among several."""
    ratings: dict[str, Sequence[float | None]] = field(default_factory=dict)

    def values(self) -> dict[str, Sequence[float | None]]:
        """Everything measured about the answers, by measure."""
        values: dict[str, Sequence[float | None]] = {}
        if self.proxy is not None:
            values["proxy"] = self.proxy
        values |= self.ratings
        values["length"] = [float(length) for length in self.lengths]
        values["kl"] = list(self.divergence)
        values["ended"] = [float(answer.ended) for answer in self.answers]
        if self.drawn is not None:
            values["drawn"] = [float(tokens) for tokens in self.drawn]
        return values


def compare(
    prompts: Sequence[Prompt],
    models: Sequence[Answers],
    rater: Rater,
    *,
    show: int = 12,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures each model, and each against every one before it; the first is the baseline.

    Args:
        prompts: the same for all models.
        models: each with its answers.
        rater: the held-out signal.
        show: prompts whose answers are kept for reading side by side.
        seed: of the bootstrap.
    """
    for model in models:
        model.ratings.update(rater.rate(prompts, model.answers))
    measured = {model.name: model.values() for model in models}
    measures = [*([PROXY] if models[0].proxy is not None else []), *rater.measures, *BASE_MEASURES]
    if models[0].drawn is not None:
        measures.append(DRAWN)
    return {
        "models": [
            {
                "name": model.name,
                "label": model.name,
                "stage": model.stage,
                "measures": {
                    key: bootstrap_mean(_present(column), seed=seed).to_json()
                    for key, column in measured[model.name].items()
                },
            }
            for model in models
        ],
        "measures": [measure.to_json() for measure in measures],
        "differences": [
            row
            for i, model in enumerate(models)
            for other in models[:i]
            for row in _differences(model.name, other.name, measured, seed)
        ],
        "histograms": {"length": {model.name: list(model.lengths) for model in models}},
        "notes": [],
        "samples": [_sample(prompt, i, models) for i, prompt in enumerate(prompts[:show])],
    }


def _present(column: Sequence[float | None]) -> list[float]:
    return [value for value in column if value is not None]


def _differences(
    model: str, baseline: str, measured: Mapping[str, Mapping[str, Any]], seed: int
) -> list[dict[str, Any]]:
    rows = []
    for key, column in measured[model].items():
        pairs = [
            (a, b)
            for a, b in zip(column, measured[baseline][key], strict=True)
            if a is not None and b is not None
        ]
        if pairs:
            estimate = bootstrap_difference([a for a, _ in pairs], [b for _, b in pairs], seed=seed)
            rows.append(
                {"model": model, "baseline": baseline, "measure": key, **estimate.to_json()}
            )
    return rows


def _sample(prompt: Prompt, index: int, models: Sequence[Answers]) -> dict[str, Any]:
    """One prompt with every model's answer and what it scored."""
    return {
        "prompt": [message.to_json() for message in prompt.messages],
        "answers": {
            model.name: {
                "text": model.answers[index].text,
                "scores": {
                    key: column[index]
                    for key, column in model.values().items()
                    if key in ("proxy", *model.ratings) and column[index] is not None
                },
            }
            for model in models
        },
    }


def checkpoints(
    stage: str,
    rows: Sequence[Mapping[str, Any]],
    proxies: Sequence[float | None] | None,
    rater: Rater,
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measures the probes that a training stage took on its way."""
    prompts = [Prompt.from_json(row) for row in rows]
    ratings = rater.rate(prompts, [Answer.from_probe(row) for row in rows])
    columns: dict[str, Sequence[float | None]] = {
        **({"proxy": proxies} if proxies is not None else {}),
        **ratings,
        "length": [float(row["length"]) for row in rows],
        "kl": [float(row["kl"]) for row in rows],
        "ended": [float(row["ended"]) for row in rows],
    }
    return [
        {
            "stage": stage,
            "step": step,
            "measures": {
                key: bootstrap_mean(
                    [
                        value
                        for value, row in zip(column, rows, strict=True)
                        if row["step"] == step and value is not None
                    ],
                    seed=seed,
                ).to_json()
                for key, column in columns.items()
            },
        }
        for step in sorted({int(row["step"]) for row in rows})
    ]
