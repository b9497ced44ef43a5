"""The parts of the report that come from the stages' own files, as plain values for the page."""

import json
from collections.abc import Mapping
from typing import Any

from tutelage.tracking.format import duration, interval, number
from tutelage.tracking.reader import RunRecord, StageRecord
from tutelage.tracking.report_text import messages, shortened

__all__ = [
    "configuration_rows",
    "label_tables",
    "reward_table",
    "stage_row",
    "training_samples",
    "version_list",
]

_MOST_KEY_METRICS = 6
_ALARM = "alarm/"


def stage_row(stage: StageRecord, run: RunRecord) -> dict[str, Any]:
    """Name, time and key numbers of a stage; its bar is relative to the longest stage."""
    manifest = stage.manifest
    numbers = {k: v for k, v in manifest.metrics.items() if not k.startswith(_ALARM)}
    longest = max(other.manifest.seconds for other in run.stages) or 1.0
    return {
        "name": stage.name,
        "kind": manifest.kind,
        "duration": duration(manifest.seconds),
        "share": round(100 * manifest.seconds / longest, 1),
        "metrics": [
            (key if "/" in key else key.replace("_", " "), number(value))
            for key, value in list(numbers.items())[:_MOST_KEY_METRICS]
        ],
        "alarms": _alarms(manifest.metrics),
    }


def _alarms(metrics: Mapping[str, float | None]) -> list[str]:
    """A line for each alarm that rang in the stage."""
    counts = {k: v for k, v in metrics.items() if k.startswith(_ALARM) and not k.endswith("/first")}
    return [
        f"{key.removeprefix(_ALARM)}: {number(count)} rounds, first in step "
        f"{number(metrics[f'{key}/first'])}"
        for key, count in counts.items()
    ]


def label_tables(stage: StageRecord) -> dict[str, Any]:
    """Who labelled, how far they agree and what it cost, from `labels.json`."""
    labels = stage.labels or {}
    return {
        "stage": stage.name,
        "tables": [
            {"title": title, "rows": _table(labels[key], unit)}
            for key, title, unit in (
                ("annotators", "Labels", ""),
                ("agreement", "Agreement", ""),
                ("prefers_longer", "Prefers the longer one", "%"),
                ("cost", "Cost", ""),
            )
            if labels.get(key)
        ],
    }


def _table(value: Any, unit: str = "") -> list[tuple[str, str, str]]:
    """Label, number, interval; an estimate is one row, other mappings are opened."""
    if not isinstance(value, Mapping):
        return [("all", _text(value, unit), "")]
    rows: list[tuple[str, str, str]] = []
    for key, item in value.items():
        label = str(key).replace("_", " ")
        if isinstance(item, Mapping) and ("mean" in item or "share" in item):
            rows.append((label, *_share(item)))
        elif isinstance(item, Mapping):
            rows += [(f"{label}: {name}", text, rest) for name, text, rest in _table(item)]
        else:
            rows.append((label, _text(item), ""))
    return rows


def _share(row: Mapping[str, Any]) -> tuple[str, str]:
    """A share in per cent; its interval, the number of samples, agreement beyond chance."""
    mean, count = row.get("mean", row.get("share")), row.get("n", row.get("pairs"))
    rest = []
    if row.get("low") is not None and row.get("high") is not None:
        rest.append(interval(row["low"], row["high"], "%", 1))
    if count:
        rest.append(f"n = {count:,}")
    if row.get("kappa") is not None:
        rest.append(f"kappa {number(row['kappa'], decimals=2)}")
    return number(mean, "%", 1), ", ".join(rest)


def _text(value: Any, unit: str = "") -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else number(value, unit)


def reward_table(run: RunRecord) -> dict[str, Any] | None:
    """One column per reward model; a row that no reward model fills is left out."""
    stages = [stage for stage in run.stages if stage.reward]
    rows = [
        {"label": label, "cells": [_quality(_at(stage.reward or {}, key)) for stage in stages]}
        for key, label in _QUALITIES.items()
    ]
    filled = [row for row in rows if any(row["cells"])]
    return {"stages": [stage.name for stage in stages], "rows": filled} if stages else None


_QUALITIES = {
    "held_out_accuracy": "Held-out accuracy",
    "phases.-1.gain": "Gain of the last phase",
    "held_out_loss": "Held-out loss",
    "accuracy_gold": "Agreement with gold",
    "ece": "Calibration error",
    "brier": "Brier score",
    "length_correlation": "Correlation with length",
    "length_slope": "Score per extra token",
    "held_out.length.similar": "Accuracy at similar length",
    "held_out.baselines.length.lead": "Lead over length alone",
    "held_out.baselines.words.lead": "Lead over a bag of words",
    "folds.out_of_fold.accuracy": "Cross-validated accuracy",
    "folds.agreement.same_choice": "Agreement of the folds",
    "members.disagreement_finds_errors": "Disagreement finds errors",
}


def _at(reward: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, with numbers for places of lists; None where there is none."""
    value: Any = reward
    for key in path.split("."):
        if isinstance(value, list):
            value = value[int(key)]
        else:
            value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _quality(value: Any) -> tuple[str, str] | None:
    if value is None:
        return None
    return _share(value) if isinstance(value, Mapping) else (number(value, decimals=3), "")


def training_samples(stage: StageRecord) -> dict[str, Any] | None:
    """Samples from the beginning, the middle and the end of a stage that wrote some."""
    samples = stage.samples()
    if not samples:
        return None
    steps = list(dict.fromkeys(row["step"] for row in samples))
    chosen = {steps[0], steps[len(steps) // 2], steps[-1]}
    rows = []
    for step in sorted(chosen):
        for row in [row for row in samples if row["step"] == step][:3]:
            parts = [(key, number(value, decimals=2)) for key, value in row["parts"].items()]
            rows.append(
                {
                    "step": step,
                    "prompt": messages(row["prompt"]),
                    "text": shortened(row["completion"]),
                    "tokens": row["tokens"],
                    "truncated": row["stop"] == "length",
                    "score": number(row["score"], decimals=2),
                    "parts": parts,
                    "kl": number(row["kl"], decimals=2),
                }
            )
    return {"stage": stage.name, "rows": rows}


def configuration_rows(stage: StageRecord) -> list[tuple[str, str]]:
    """Dotted keys and values of a stage's configuration."""
    return _flat(stage.manifest.config)


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        rows = []
        for key, item in value.items():
            rows += _flat(item, f"{path}.{key}" if path else str(key))
        return rows
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [(path, shortened(shown))]


def version_list(run: RunRecord) -> list[tuple[str, str]]:
    """Each package with every version that took part."""
    seen: dict[str, dict[str, None]] = {}
    for stage in run.stages:
        for package, version in stage.manifest.versions.items():
            seen.setdefault(package, {})[version] = None
    return [(package, ", ".join(versions)) for package, versions in seen.items()]
