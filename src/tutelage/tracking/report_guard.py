"""The report's page on the guard: reward against held-out signals, alarms, and the evidence."""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.tracking import plots
from tutelage.tracking.format import number
from tutelage.tracking.plots import Series
from tutelage.tracking.reader import RunRecord, StageRecord, read_json
from tutelage.tracking.report_charts import Legend, Panel
from tutelage.tracking.report_text import messages, shortened

__all__ = ["guard_sections"]

_HELD_OUT = "held_out/"
_LOOSE = ("length", "kl", "ended", "repetition", "entropy", "outliers", "openings", "disagreement")
_TITLES = {
    "length": "Length of probes (tokens)",
    "kl": "KL of probes (nats)",
    "ended": "Answers that end by themselves",
    "repetition": "Repeated word triples",
    "entropy": "Surprisal per token (nats)",
    "outliers": "Answers unlike any before",
    "openings": "Identical openings",
    "disagreement": "Disagreement of reward models",
}
_SHOWN = 3
"""Alarms whose samples are shown, the first of each monitor."""


def guard_sections(run: RunRecord) -> list[dict[str, Any]]:
    """Charts, alarms and samples of each stage that had a guard."""
    found = []
    for stage in run.stages:
        record = read_json(stage.folder / "guard.json")
        if record is not None:
            found.append(_section(stage, record))
    return found


def _section(stage: StageRecord, record: Mapping[str, Any]) -> dict[str, Any]:
    rows = record["measurements"]
    panels = [_together(stage.name, rows, record.get("units", {}))] + [
        _alone(stage.name, name, rows) for name in _LOOSE if name in rows[0]["means"]
    ]
    return {
        "stage": stage.name,
        "panels": panels,
        "alarms": _alarms(record["alarms"]),
        "outcome": _outcome(record),
        "samples": _samples(record["samples"]),
    }


def _together(stage: str, rows: Sequence[Mapping[str, Any]], units: Mapping[str, float]) -> Panel:
    """Gains since the first probe, with a band of two standard errors.

    In standard deviations: a reward's own unit may be many times that of a judge's probability.
    """
    names = ["proxy", *(name for name in rows[0]["means"] if name.startswith(_HELD_OUT))]
    series = [
        _series(name, rows, colour, since_first=True, unit=units.get(name) or 1.0)
        for colour, name in enumerate(names)
    ]
    legend = tuple(Legend(one.label, one.colour) for one in series)
    note = (
        "Gain since the first probe, in standard deviations. A reward that rises while held-out "
        "signals fall is gamed."
    )
    svg = plots.curves(f"guard-{stage}", series)
    return Panel("Reward and held-out signals", note, svg, legend)


def _alone(stage: str, name: str, rows: Sequence[Mapping[str, Any]]) -> Panel:
    svg = plots.curves(f"guard-{stage}-{name}", [_series(name, rows, 0)])
    return Panel(_TITLES[name], "", svg)


def _series(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    colour: int,
    *,
    since_first: bool = False,
    unit: float = 1.0,
) -> Series:
    kept = [row for row in rows if None not in (row["means"][name], row["errors"][name])]
    start = kept[0]["means"][name] if since_first and kept else 0.0
    means = [(row["means"][name] - start) / unit for row in kept]
    errors = [2 * row["errors"][name] / unit for row in kept]
    return Series(
        name.removeprefix(_HELD_OUT),
        [float(row["step"]) for row in kept],
        means,
        colour,
        [mean - error for mean, error in zip(means, errors, strict=True)],
        [mean + error for mean, error in zip(means, errors, strict=True)],
    )


def _alarms(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A monitor that rings for a column is told once, with all steps in which it rang."""
    rang: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        rang.setdefault((row["monitor"], row["column"]), []).append(row)
    return [
        {
            "steps": ", ".join(str(each["step"]) for each in same),
            "monitor": row["monitor"].replace("_", " "),
            "action": row["action"].replace("_", " "),
            "p": f"{row['p']:.1e}" if row["level"] else "",
            "level": f"{row['level']:.1e}" if row["level"] else "a rule",
            "sentence": row["sentence"],
        }
        for same in rang.values()
        for row in same[:1]
    ]


def _outcome(record: Mapping[str, Any]) -> str:
    said = [f"{len(record['measurements'])} probes"]
    if record["best_step"] is not None:
        said.append(f"the best by held-out signals after step {record['best_step']}")
    if record["roll_backs"]:
        said.append(f"{record['roll_backs']} roll-backs")
    return ", ".join(said)


def _samples(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    first = {row["monitor"]: row for row in reversed(rows)}
    return [
        {
            "title": f"{row['monitor'].replace('_', ' ')}, step {row['step']}",
            "prompt": messages(sample["prompt"]),
            "before": shortened(sample["before"]),
            "now": shortened(sample["now"]),
            "values": [
                (name.removeprefix(_HELD_OUT), " to ".join(map(_number, pair)))
                for name, pair in sample["values"].items()
            ],
        }
        for row in list(first.values())[:_SHOWN]
        for sample in row["samples"]
    ]


def _number(value: float | None) -> str:
    return "none" if value is None else number(value, decimals=2)
