"""Whether a judge can be trusted: what it can be read of, its biases, and people's agreement.

    verdicts in both orders ──┬── parse rate, position, length, self-preference, sycophancy
    people's labels ──────────┴── accuracy, kappa, calibration, by source and category

Intervals are of the bootstrap over prompts (`tutelage.evaluation.intervals`). Position, verbosity
and self-preference: Zheng et al. 2023 (arXiv:2306.05685), section 3.3; the share of pairs in which
the same position wins twice: Lee et al. 2023 (arXiv:2309.00267), appendix B.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.calibration import calibration, temperature
from tutelage.evaluation.intervals import clustered_mean
from tutelage.evaluation.judge_agreement import kappa
from tutelage.evaluation.judge_probes import Probed, sycophancy
from tutelage.evaluation.length_control import length_control
from tutelage.evaluation.reward_report import accuracy_by_group
from tutelage.evaluation.scored_pairs import ScoredPairs
from tutelage.feedback import compared, fewest_labels, trusted_confidence
from tutelage.records import Comparison, Preference

__all__ = ["Judged", "judge_report"]

Numbers = NDArray[np.float64]

_READABLE = 0.95
"""Parse rate below which a judge is not to be used."""
_CONTRADICTING = 0.25
"""Share of contradictions above which its labels are mostly the position's."""
_CLOSEST = 1e-6
"""Probabilities nearer to 0 or 1 count as this near: their log-odds are finite."""
_DISAGREEMENT, _FAILURE = 0.2, 0.1
"""Share of a judge's labels that may differ from people's where it is trusted, and how probable it
may be that more do: agreement of 80 %, as Jung et al. 2024 (arXiv:2407.18370) aim at."""
_FEWEST = 10
"""Pairs below which a group has no kappa."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A comparison with what the judge says, and what people say where they have been asked."""

    comparison: Comparison
    orders: tuple[float | None, float | None]
    """P(a is better) where a was shown first, and where it was shown second."""
    people: float | None = None
    """People's P(a is better)."""
    sources: tuple[str, str] | None = None
    """Who wrote a and b, where that is known."""

    @property
    def p_a(self) -> float | None:
        """The mean of both orders; None unless both could be read."""
        first, second = self.orders
        return None if first is None or second is None else (first + second) / 2


def judge_report(
    rows: Sequence[Judged], probes: Sequence[Probed] = (), *, own: str = "", seed: int = 0
) -> dict[str, Any]:
    """All that is known of a judge from these comparisons, as JSON; null where nothing is known.

    Args:
        rows: comparisons in both orders.
        probes: comparisons asked again with opinions, see `tutelage.evaluation.judge_probes`.
        own: the source that is the judge itself, or of its family.
        seed: of the bootstrap.
    """
    read = [row for row in rows if row.p_a is not None]
    readings = np.array([p is not None for row in rows for p in row.orders], float)
    prompts = [row.comparison.prompt.id for row in rows for _ in row.orders]
    report: dict[str, Any] = {
        "comparisons": len(rows),
        "judged": len(read),
        "parse_rate": clustered_mean(readings, prompts, seed=seed).to_json(),
        "position": _position(read, seed),
        "length": _length(read, seed),
        "self_preference": _self_preference(read, own, seed) if own else None,
        "sycophancy": sycophancy(probes, seed=seed) if probes else None,
        "people": _people([row for row in read if row.people is not None], seed),
    }
    report["warnings"] = list(_warnings(report))
    return report


def _position(rows: Sequence[Judged], seed: int) -> dict[str, Any] | None:
    """What the judge gives to the answer it reads first, and how often that decides."""
    if not rows:
        return None
    forth, back = _orders(rows)
    first, second = (forth > 0.5) & (back < 0.5), (forth < 0.5) & (back > 0.5)
    mean = _mean_over(rows, seed)
    return {
        # Of a pair, the answers shown first are a, with P(a), and then b, with 1 - P(a).
        "p_first": mean((forth + 1.0 - back) / 2),
        "contradictions": mean((first | second).astype(float)),
        "first_wins_twice": mean(first.astype(float)),
        "second_wins_twice": mean(second.astype(float)),
    }


def _length(rows: Sequence[Judged], seed: int) -> dict[str, Any] | None:
    """What the judge gives to the longer answer, beside what people give it on the same pairs."""
    rows = [row for row in rows if len(row.comparison.a) != len(row.comparison.b)]
    if not rows:
        return None
    longer = np.array([len(row.comparison.a) > len(row.comparison.b) for row in rows])
    found = {"p_longer": _mean_over(rows, seed)(_of_side(_probabilities(rows), longer))}
    return found | _excess(rows, longer, seed)


def _self_preference(rows: Sequence[Judged], own: str, seed: int) -> dict[str, Any] | None:
    """What the judge gives to its own answers, beside what people give them on the same pairs."""
    rows = [row for row in rows if row.sources is not None and row.sources.count(own) == 1]
    if not rows:
        return None
    first = np.array([row.sources is not None and row.sources[0] == own for row in rows])
    found = {"own": own, "p_own": _mean_over(rows, seed)(_of_side(_probabilities(rows), first))}
    return found | _excess(rows, first, seed)


def _excess(rows: Sequence[Judged], first: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    """By how much the judge gives one side more than people do, pair by pair."""
    known = [i for i, row in enumerate(rows) if row.people is not None]
    if not known:
        return {"people": None, "excess": None}
    shared = [rows[i] for i in known]
    labels = np.array([row.people for row in shared], float)
    people = _of_side(labels, first[known])
    judge = _of_side(_probabilities(shared), first[known])
    mean = _mean_over(shared, seed)
    return {"people": mean(people), "excess": mean(judge - people)}


def _people(rows: Sequence[Judged], seed: int) -> dict[str, Any] | None:
    """Agreement with people, over all pairs and by group."""
    if not rows:
        return None
    p_a = np.clip(_probabilities(rows), _CLOSEST, 1.0 - _CLOSEST)
    preferences = tuple(Preference(row.comparison, row.people or 0.0, "people") for row in rows)
    pairs = ScoredPairs(preferences, np.log(p_a) - np.log1p(-p_a))
    labels, prompts = pairs.labels, pairs.prompts
    verdicts = _verdicts(rows)
    groups = accuracy_by_group(pairs, seed=seed)
    for grouping, table in groups.items():
        for group in table:
            chosen = np.array([_group(row, grouping) == group["name"] for row in rows])
            inside = [prompt for prompt, kept in zip(prompts, chosen, strict=True) if kept]
            group["kappa"] = kappa(verdicts[chosen], labels[chosen], inside, seed=seed).to_json()
    return {
        "accuracy": clustered_mean(pairs.right, prompts, seed=seed).to_json(),
        "kappa": kappa(verdicts, labels, prompts, seed=seed).to_json(),
        "calibration": calibration(pairs.margins, labels).to_json(),
        "temperature": temperature(pairs.margins, labels, prompts).to_json(),
        "length": length_control(pairs, seed=seed).to_json(),
        "trust": _trust(rows),
        "groups": groups,
    }


def _trust(rows: Sequence[Judged]) -> dict[str, Any] | None:
    """From which confidence on its labels can be taken without asking people; None for never."""
    found = []
    for row in rows:
        forth, back = row.orders
        if forth is None or back is None or row.people is None:
            continue
        if (verdict := compared((forth + back) / 2, (forth, back), row.people)) is not None:
            found.append(verdict)
    if len(found) < fewest_labels(_DISAGREEMENT, _FAILURE):
        return None
    trust = trusted_confidence(found, disagreement=_DISAGREEMENT, failure=_FAILURE)
    return None if trust is None else asdict(trust)


def _group(row: Judged, grouping: str) -> str:
    prompt = row.comparison.prompt
    return {"source": prompt.source, "category": prompt.category}.get(grouping, "")


def _warnings(report: dict[str, Any]) -> list[str]:
    found = []
    rate = report["parse_rate"]["mean"]
    if report["comparisons"] and rate < _READABLE:
        found.append(
            f"only {rate:.1%} of the verdicts could be read, expected {_READABLE:.0%}: the model "
            "does not keep to the form, and what is left is no fair sample"
        )
    position = report["position"]
    if position is not None and position["contradictions"]["mean"] > _CONTRADICTING:
        found.append(
            f"the position decides {position['contradictions']['mean']:.1%} of the pairs: a "
            "larger model, or reasons, may help"
        )
    people = report["people"]
    if people is not None and people["accuracy"]["low"] <= 0.5:
        found.append("its agreement with people is not above chance: do not use its labels")
    return found


def _verdicts(rows: Sequence[Judged]) -> Numbers:
    """1, 0, or 1/2 where the orders contradict each other."""
    forth, back = _orders(rows)
    both = np.sign(forth - 0.5) + np.sign(back - 0.5)
    return np.where(np.abs(both) == 2, 0.5 + 0.25 * both, 0.5)


def _orders(rows: Sequence[Judged]) -> tuple[Numbers, Numbers]:
    both = np.array([row.orders for row in rows], float).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _probabilities(rows: Sequence[Judged]) -> Numbers:
    forth, back = _orders(rows)
    mean: Numbers = (forth + back) / 2
    return mean


def _of_side(p_a: Numbers, first: NDArray[np.bool_]) -> Numbers:
    """The probability of the side that is a where `first`."""
    return np.where(first, p_a, 1.0 - p_a)


def _mean_over(rows: Sequence[Judged], seed: int) -> Callable[[Numbers], dict[str, float]]:
    prompts = [row.comparison.prompt.id for row in rows]
    return lambda values: clustered_mean(values, prompts, seed=seed).to_json()
