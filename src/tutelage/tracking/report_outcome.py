"""The parts of the report that come from `evaluation.json`, as plain values for the page."""

from collections.abc import Mapping
from typing import Any

from tutelage.tracking.evaluation_record import EvaluationRecord, Measure, Model
from tutelage.tracking.format import interval, number
from tutelage.tracking.report_charts import Colours
from tutelage.tracking.report_text import messages, shortened
from tutelage.tracking.table import MOST_COLUMNS

__all__ = ["difference_table", "headline_table", "length_control_rows", "side_by_side"]

_MOST_SAMPLES = 16
# Typographic signs, written as escapes because they look like others.
_MINUS, _DASH = "\u2212", "\u2013"


def headline_table(record: EvaluationRecord, colours: Colours) -> dict[str, Any]:
    """For each measure its cells, one for each model, and a strip that shows the intervals.

    Where `many` is set there are more models than columns fit: the page makes them its rows.
    """
    rows = [
        {
            "label": measure.label,
            "unit": measure.unit,
            "better": measure.better,
            "description": measure.description,
            "cells": [_cell(record, model, measure) for model in record.models],
            "strip": _strip(record, measure, colours),
        }
        for measure in record.measures
    ]
    heads = [{"label": model.label, "colour": colours.model(model.name)} for model in record.models]
    sizes = {it.n for model in record.models for it in model.measures.values() if it.n}
    return {
        "heads": heads,
        "rows": rows,
        "many": len(record.models) > MOST_COLUMNS,
        "baseline": record.baseline.label,
        "n": f"{min(sizes):,}" if len(sizes) == 1 else "",
    }


def _strip(
    record: EvaluationRecord, measure: Measure, colours: Colours
) -> list[dict[str, float | int] | None]:
    """Each model's interval on the measure's common scale, in per cent of the strip's width.

    None where the model lacks the measure, and for all where they are one point.
    """
    found = [model.measures.get(measure.key) for model in record.models]
    low = min((it.low for it in found if it), default=0.0)
    width = max((it.high for it in found if it), default=0.0) - low
    return [
        {
            "colour": colours.model(model.name),
            "low": round(100 * (estimate.low - low) / width, 1),
            "width": round(100 * (estimate.high - estimate.low) / width, 1),
            "mean": round(100 * (estimate.mean - low) / width, 1),
        }
        if estimate and width > 0
        else None
        for model, estimate in zip(record.models, found, strict=True)
    ]


def _cell(record: EvaluationRecord, model: Model, measure: Measure) -> dict[str, Any] | None:
    estimate = model.measures.get(measure.key)
    if estimate is None:
        return None
    decimals = record.decimals(measure)
    certain = estimate.low == estimate.high
    return {
        "mean": number(measure.scale * estimate.mean, decimals=decimals),
        "interval": ""
        if certain
        else interval(estimate.low, estimate.high, measure.unit, decimals),
        "change": record.change(model, measure) if measure.is_evidence else None,
    }


def difference_table(record: EvaluationRecord) -> dict[str, Any] | None:
    """The stated differences of each measure, with a cell for each pair of models.

    Of many models only those to the baseline: the number of pairs grows with its square.
    """
    labels = {model.name: model.label for model in record.models}
    many = len(record.models) > MOST_COLUMNS
    pairs = list(
        dict.fromkeys(
            (it.model, it.baseline)
            for it in record.differences
            if not many or it.baseline == record.baseline.name
        )
    )
    rows = []
    for measure in record.measures:
        found = [record.difference(model, measure.key, baseline) for model, baseline in pairs]
        if any(found):
            decimals = record.decimals(measure)
            cells = [
                {
                    "mean": f"{measure.scale * it.mean:+,.{decimals}f}",
                    "interval": interval(it.low, it.high, measure.unit, decimals),
                    "sure": it.direction != 0,
                }
                if it
                else None
                for it in found
            ]
            unit = "points" if measure.unit == "%" else measure.unit
            rows.append({"label": measure.label, "unit": unit, "cells": cells})
    heads = [f"{labels.get(a, a)} {_MINUS} {labels.get(b, b)}" for a, b in pairs]
    return {"heads": heads, "rows": rows, "many": many} if rows else None


def length_control_rows(record: EvaluationRecord) -> list[dict[str, Any]]:
    """How much of each gain is left among samples of equal length."""
    return [_length_control(row, record) for row in record.length_control]


def _length_control(row: Mapping[str, Any], record: EvaluationRecord) -> dict[str, Any]:
    labels = {model.name: model.label for model in record.models}
    units = {measure.key: measure for measure in record.measures}
    measure = units.get(row["measure"])
    gain, same = row["gain"], row["gain_at_equal_length"]
    return {
        "label": labels.get(row["model"], row["model"]),
        "baseline": labels.get(row["baseline"], row["baseline"]),
        "measure": measure.label if measure else row["measure"],
        "gain": number(gain, decimals=2),
        "same": number(same, decimals=2),
        "share": number(same / gain, "%", 0) if gain else "n/a",
        "buckets": [
            {
                "range": f"{bucket['low']:g}{_DASH}{bucket['high']:g}",
                "n": f"{bucket['n']:,}",
                "baseline": number(bucket.get("baseline"), decimals=2),
                "model": number(bucket.get("model"), decimals=2),
            }
            for bucket in row.get("buckets") or ()
        ],
    }


def side_by_side(record: EvaluationRecord) -> list[dict[str, Any]]:
    """The same prompts with every model's text and scores."""
    measures = {measure.key: measure for measure in record.measures}
    samples = []
    for sample in record.samples[:_MOST_SAMPLES]:
        answers = []
        for model in record.models:
            answer = sample["answers"].get(model.name)
            if answer is not None:
                answers.append(
                    {
                        "model": model.name,
                        "text": shortened(answer["text"]),
                        "scores": _scores(answer.get("scores") or {}, measures),
                    }
                )
        samples.append({"prompt": messages(sample["prompt"]), "answers": answers})
    return samples


def _scores(
    scores: Mapping[str, float | None], measures: Mapping[str, Measure]
) -> list[tuple[str, str]]:
    shown = []
    for key, value in scores.items():
        label = measures[key].label if key in measures else key.replace("_", " ")
        shown.append((label, number(value, decimals=2)))
    return shown
