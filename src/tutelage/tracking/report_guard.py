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
    panels = [_together(stage.name, rows, record.get("units"))] + [
        _alone(stage.name, name, rows) for name in _LOOSE if name in rows[0]["means"]
    ]
    return {
        "stage": stage.name,
        "panels": panels,
        "alarms": _alarms(record["alarms"]),
        "outcome": _outcome(record),
        "samples": _samples(record["samples"]),
    }


def _together(
    stage: str, rows: Sequence[Mapping[str, Any]], units: Mapping[str, float] | None
) -> Panel:
    """Gains since the first probe, with a band of two standard errors.

    In standard deviations, where they were recorded: a reward's own unit may be many times that of
    a judge's probability.
    """
    names = ["proxy", *(name for name in rows[0]["means"] if name.startswith(_HELD_OUT))]
    series = [
        _series(name, rows, colour, gain_in=(units or {}).get(name) or 1.0)
        for colour, name in enumerate(names)
    ]
    legend = tuple(Legend(one.label, one.colour) for one in series)
    scale = ", in standard deviations" if units else ""
    note = (
        f"Gain since the first probe{scale}; of held-out reward models without what they pay for "
        "length. A reward that rises while held-out signals fall is gamed."
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
    gain_in: float | None = None,
) -> Series:
    """The column as it is, or its gain since the first probe in that unit."""
    kept = [row for row in rows if None not in (row["means"][name], row["errors"][name])]
    start = 0.0 if gain_in is None or not kept else kept[0]["means"][name]
    means = [(row["means"][name] - start) / (gain_in or 1.0) for row in kept]
    errors = [2 * row["errors"][name] / (gain_in or 1.0) for row in kept]
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
    return [_alarm(same) for same in rang.values()]


def _alarm(same: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """All steps, and what was said in the first."""
    first = same[0]
    return {
        "steps": ", ".join(str(each["step"]) for each in same),
        "monitor": first["monitor"].replace("_", " "),
        "action": first["action"].replace("_", " "),
        "p": f"{first['p']:.1e}" if first["level"] else "",
        "level": f"{first['level']:.1e}" if first["level"] else "a rule",
        "sentence": first["sentence"],
    }


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
