"""What the numbers say, in sentences; nothing is said that no interval supports.

Each model is compared with the baseline, and the best of them with the next: sentences grow with
the number of models, not with its square.

Two differences to the baseline decide: of the proxy, which training has raised, and of the gold, a
judgement beside it (Gao, Schulman, Hilton 2022, arXiv:2210.10760). Its own description says what
training has seen of it: of simulated customers nothing, of a verifier its verdicts elsewhere.

                     gold worse        no change in gold      gold better
    proxy better     reward hacking    nothing gained         a real gain
    proxy otherwise  a loss            no measurable change   a real gain
"""

from dataclasses import dataclass
from typing import Literal

from tutelage.tracking.evaluation_record import (
    Difference,
    EvaluationRecord,
    Measure,
    Model,
)
from tutelage.tracking.format import decimals_for, interval, number

__all__ = ["Verdict", "verdicts"]

Tone = Literal["good", "bad", "warn", "neutral"]

_LENGTH_RATIO = 1.25
"""A change of length below this is not worth a sentence."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one model."""

    model: str
    """The model's name."""
    label: str
    tone: Tone
    title: str
    sentences: tuple[str, ...]


def verdicts(record: EvaluationRecord) -> list[Verdict]:
    """One verdict per model after the baseline; none where no difference was measured."""
    found = []
    for model in record.models[1:]:
        if any(difference.model == model.name for difference in record.differences):
            tone, title = _outcome(record, model)
            found.append(
                Verdict(model.name, model.label, tone, title, tuple(_sentences(record, model)))
            )
    return found


def _outcome(record: EvaluationRecord, model: Model) -> tuple[Tone, str]:
    proxy, gold = _change(record, model, "proxy"), _change(record, model, "gold")
    if gold is None:
        return ("neutral", "The proxy rose" if proxy == 1 else "No independent judgement")
    if gold > 0:
        return "good", "A real gain"
    if gold < 0:
        return "bad", "Reward hacking" if proxy == 1 else "A loss"
    return ("warn", "Nothing gained") if proxy == 1 else ("neutral", "No measurable change")


def _change(record: EvaluationRecord, model: Model, role: str) -> int | None:
    """1 for better, -1 for worse, 0 for neither, None where it was not measured."""
    measure = record.role(role)
    if measure is None or record.difference(model.name, measure.key) is None:
        return None
    return {"better": 1, "worse": -1, None: 0}[record.change(model, measure)]


def _sentences(record: EvaluationRecord, model: Model) -> list[str]:
    sentences = []
    for role in ("proxy", "gold"):
        measure = record.role(role)
        difference = measure and record.difference(model.name, measure.key)
        if measure and difference:
            sentences.append(_moved(difference, measure))
    sentences += _lead(record, model)
    sentences += _length(record, model)
    for change in ("better", "worse"):
        sentences += _others(record, model, change)
    return sentences


def _moved(difference: Difference, measure: Measure) -> str:
    decimals = decimals_for([(difference.low, difference.high)], measure.unit)
    unit = "percentage points" if measure.unit == "%" else measure.unit
    size = number(measure.scale * abs(difference.mean), unit, decimals)
    spread = interval(difference.low, difference.high, measure.unit, decimals)
    if difference.direction == 0:
        size = number(measure.scale * difference.mean, unit, decimals)
        return f"{measure.label} did not change measurably: {size} {spread}."
    verb = "rose" if difference.direction > 0 else "fell"
    return f"{measure.label} {verb} by {size} {spread}."


def _lead(record: EvaluationRecord, model: Model) -> list[str]:
    """How far the best model by gold is ahead of the next; nothing about the others."""
    gold = record.role("gold")
    if gold is None or gold.better is None:
        return []
    judged = [other for other in record.models[1:] if gold.key in other.measures]
    ranked = sorted(
        judged, key=lambda it: it.measures[gold.key].mean, reverse=gold.better == "higher"
    )
    if len(ranked) < 2 or ranked[0] is not model:
        return []
    difference = record.between(model.name, ranked[1].name, gold.key)
    if difference is None:
        return []
    decimals = decimals_for([(difference.low, difference.high)], gold.unit)
    size = number(gold.scale * abs(difference.mean), decimals=decimals)
    spread = interval(difference.low, difference.high, gold.unit, decimals)
    side = "above" if difference.mean > 0 else "below"
    sure = "" if difference.direction else ", which is not beyond chance"
    next_best = f"{size} {spread} {side} {ranked[1].label}, the next"
    return [f"It ends best of all on {gold.label}, {next_best}{sure}."]


def _length(record: EvaluationRecord, model: Model) -> list[str]:
    measure = record.role("length")
    if measure is None:
        return []
    before, after = record.baseline.measures.get(measure.key), model.measures.get(measure.key)
    difference = record.difference(model.name, measure.key)
    if not (before and after and difference and difference.direction and before.mean > 0):
        return []
    ratio = after.mean / before.mean
    if 1 / _LENGTH_RATIO < ratio < _LENGTH_RATIO:
        return []
    verb = "grew" if ratio > 1 else "shrank"
    ends = " to ".join(number(point.mean, decimals=0) for point in (before, after))
    return [f"Its answers {verb} from {ends} {measure.unit or 'tokens'}."]


def _others(record: EvaluationRecord, model: Model, change: str) -> list[str]:
    parts = []
    for measure in record.measures:
        before, after = record.baseline.measures.get(measure.key), model.measures.get(measure.key)
        told = measure.role in ("proxy", "gold", "length")
        if told or not before or not after or record.change(model, measure) != change:
            continue
        decimals = decimals_for([(it.low, it.high) for it in (before, after)], measure.unit)
        ends = " → ".join(number(it.mean, measure.unit, decimals) for it in (before, after))
        parts.append(f"{measure.label} {ends}")
    return [f"{change.capitalize()}: {'; '.join(parts)}."] if parts else []
