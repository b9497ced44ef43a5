"""Whether a reward model can be trusted, out of judged pairs and the margins it gives them.

ScoredPairs ──┬── accuracy, by source, category, strength
              ├── calibration, before and after a temperature
              ├── length control
              ├── the same pairs under length and word counts ──> better than those, or not
              └── the pairs it is most wrong about
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.calibration import calibration, temperature
from tutelage.evaluation.intervals import Estimate, clustered_mean
from tutelage.evaluation.length_control import length_control
from tutelage.evaluation.reward_baselines import BASELINES, cross_validated
from tutelage.evaluation.scored_pairs import ScoredPairs, right_answers
from tutelage.records import Preference

__all__ = ["accuracy_by_group", "compare_with_baselines", "measure_pairs", "worst_pairs"]

_FEWEST = 10
"""Pairs below which a group gets no line: its accuracy would say nothing."""
_SHOWN = 8
_CHARACTERS = 600


@dataclass(frozen=True)
class _Grouping:
    name: str
    values: Sequence[str]


def measure_pairs(
    pairs: ScoredPairs, training: Sequence[Preference] = (), *, seed: int = 0
) -> dict[str, Any]:
    """All that is known of a scorer from these pairs, as JSON.

    Args:
        pairs: none of which the scorer was trained on.
        training: what it was trained on, for the baselines to learn from; without, the baselines
            are cross-validated on the pairs themselves.
        seed: of the bootstrap.
    """
    labels, prompts = pairs.labels, pairs.prompts
    before = calibration(pairs.margins, labels)
    row: dict[str, Any] = {
        "accuracy": clustered_mean(pairs.right, prompts, seed=seed).to_json(),
        **before.to_json(),
        "reliability": list(before.bins),
        "temperature": temperature(pairs.margins, labels, prompts).to_json(),
        "length": length_control(pairs, seed=seed).to_json(),
        "groups": accuracy_by_group(pairs, seed=seed),
        "worst": worst_pairs(pairs),
    }
    row["baselines"] = compare_with_baselines(pairs, training, seed=seed)
    row["verdict"] = _verdict(row)
    return row


def accuracy_by_group(pairs: ScoredPairs, *, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Accuracy per source, category, strength and kind of annotator, the worst first.

    A grouping that puts all pairs together is left out, and so are groups of few pairs.
    """
    tables = {}
    for grouping in _groupings(pairs.preferences):
        rows: list[dict[str, Any]] = []
        for value in dict.fromkeys(grouping.values):
            chosen = [i for i, other in enumerate(grouping.values) if other == value]
            if value and len(chosen) >= _FEWEST:
                part = pairs.select(chosen)
                estimate = clustered_mean(part.right, part.prompts, seed=seed)
                rows.append({"name": value, **estimate.to_json()})
        if rows and len(set(grouping.values)) > 1:
            tables[grouping.name] = sorted(rows, key=lambda row: float(row["mean"]))
    return tables


def _groupings(preferences: Sequence[Preference]) -> list[_Grouping]:
    return [
        _Grouping("source", [row.comparison.prompt.source for row in preferences]),
        _Grouping("category", [row.comparison.prompt.category for row in preferences]),
        _Grouping(
            "strength",
            ["" if row.strength is None else f"{row.strength:g}" for row in preferences],
        ),
        _Grouping("annotators", [row.kind for row in preferences]),
    ]


def compare_with_baselines(
    pairs: ScoredPairs, training: Sequence[Preference], *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Each baseline's accuracy, the scorer's lead over it pair by pair, and whether it is one.

    The scorer is `better` where the 95 % interval of its lead lies above 0.
    """
    rows = {}
    for name, margins in BASELINES.items():
        found = (
            margins(training, pairs.preferences)
            if training
            else cross_validated(margins, pairs.preferences, seed)
        )
        theirs = right_answers(found, pairs.labels)
        lead = _estimate(pairs.right - theirs, pairs, seed)
        rows[name] = {
            "accuracy": _estimate(theirs, pairs, seed).to_json(),
            "lead": lead.to_json(),
            "better": lead.low > 0.0,
        }
    return rows


def _estimate(values: NDArray[np.float64], pairs: ScoredPairs, seed: int) -> Estimate:
    return clustered_mean(values, pairs.prompts, seed=seed)


def worst_pairs(pairs: ScoredPairs, most: int = _SHOWN) -> list[dict[str, Any]]:
    """The pairs whose label contradicts the margin most: errors of the model or of the label."""
    against = -pairs.margins * np.sign(pairs.labels - 0.5)
    rows = []
    for index in np.argsort(-against, kind="stable")[:most]:
        if against[index] <= 0.0:
            break
        preference = pairs.preferences[int(index)]
        comparison = preference.comparison
        better, worse = comparison.a, comparison.b
        if preference.p_a < 0.5:
            better, worse = worse, better
        rows.append(
            {
                "id": comparison.id or comparison.prompt.id,
                "source": comparison.prompt.source,
                "prompt": comparison.prompt.text[-_CHARACTERS:],
                "better": better[:_CHARACTERS],
                "worse": worse[:_CHARACTERS],
                "p_better": max(preference.p_a, 1.0 - preference.p_a),
                "margin": -float(against[index]),
            }
        )
    return rows


def _verdict(row: Mapping[str, Any]) -> list[str]:
    """What a reader must not overlook."""
    said = []
    for name, baseline in row["baselines"].items():
        if not baseline["better"]:
            lead = baseline["lead"]
            said.append(
                f"does not beat {_BASELINE_NAMES[name]}: {row['accuracy']['mean']:.1%} against "
                f"{baseline['accuracy']['mean']:.1%}, a lead of {lead['mean']:+.1%} "
                f"[{lead['low']:+.1%}, {lead['high']:+.1%}]"
            )
    if row["accuracy"]["low"] <= 0.5:
        said.append("cannot be told from chance: the interval of its accuracy reaches 50 %")
    balanced = row["length"]["balanced"]
    if balanced is not None and balanced <= 0.5:
        said.append(f"follows length: {balanced:.1%} where the better answer is as often shorter")
    return said


_BASELINE_NAMES = {"length": "the length of the answers", "words": "a bag of words"}
