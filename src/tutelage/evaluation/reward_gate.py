"""Whether a reward model is good enough to train a policy against.

reward.json + thresholds ──> reasons against it, each with what was found and what to do
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Thresholds", "reasons_against"]


@dataclass(frozen=True)
class Thresholds:
    """What is asked of a reward model; None asks nothing."""

    accuracy: float | None = None
    """Least held-out accuracy."""
    similar_length_accuracy: float | None = None
    """Least accuracy on pairs of nearly equal length."""
    worst_group_accuracy: float | None = None
    """Least accuracy of any source, category, strength or kind of annotator."""
    ece: float | None = None
    """Largest calibration error."""
    beats_length: bool = False
    """Whether the lead over the length of the answers must be above 0 with 95 % confidence."""
    beats_words: bool = False
    """The same for a bag of words."""


def reasons_against(record: Mapping[str, Any], asked: Thresholds) -> list[str]:
    """Why a reward model falls short; empty where it does not.

    Args:
        record: what `reward.json` holds.
        asked: thresholds. What is asked for and was never measured counts against the model.
    """
    quality: Mapping[str, Any] = record.get("held_out") or {}
    length = quality.get("length") or {}
    checks = [
        _at_least("held-out accuracy", quality.get("accuracy"), asked.accuracy),
        _at_least(
            "accuracy on pairs of similar length",
            length.get("similar"),
            asked.similar_length_accuracy,
        ),
        _worst_group(quality.get("groups") or {}, asked.worst_group_accuracy),
        _at_most("calibration error", quality.get("ece"), asked.ece),
        _beats("length", quality, asked.beats_length),
        _beats("words", quality, asked.beats_words),
    ]
    return [reason for reason in checks if reason]


def _at_least(what: str, found: Mapping[str, Any] | None, least: float | None) -> str:
    if least is None:
        return ""
    if found is None:
        return f"{what} was not measured, at least {least:.1%} is asked for"
    if found["mean"] >= least:
        return ""
    return f"{what} is {_shown(found)}, at least {least:.1%} is asked for"


def _shown(found: Mapping[str, Any]) -> str:
    return f"{found['mean']:.1%} [{found['low']:.1%}, {found['high']:.1%}] of {found['n']} pairs"


def _at_most(what: str, found: float | None, most: float | None) -> str:
    if most is None:
        return ""
    if found is None:
        return f"{what} was not measured, at most {most:g} is asked for"
    return f"{what} is {found:.3f}, at most {most:g} is asked for" if found > most else ""


def _worst_group(groups: Mapping[str, Any], least: float | None) -> str:
    if least is None or not groups:
        return ""
    rows = [(grouping, row) for grouping, table in groups.items() for row in table]
    grouping, worst = min(rows, key=lambda row: row[1]["mean"])
    return _at_least(f"accuracy on {grouping} {worst['name']!r}", worst, least)


def _beats(baseline: str, quality: Mapping[str, Any], asked: bool) -> str:
    if not asked:
        return ""
    rows = quality.get("baselines")
    if rows is None:
        return f"the baseline {baseline!r} was not measured"
    if rows[baseline]["better"]:
        return ""
    lead = rows[baseline]["lead"]
    return (
        f"it does not beat the baseline {baseline!r} ({rows[baseline]['accuracy']['mean']:.1%}): "
        f"its lead is {lead['mean']:+.1%} [{lead['low']:+.1%}, {lead['high']:+.1%}], which must "
        "lie above 0"
    )
