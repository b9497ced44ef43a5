"""What is in a store: how much of what, from whom, and how well it fits together.

Comparisons are counted by their texts, not by their ids: two files may name the same pair
differently. A contradiction is a comparison that somebody has decided one way and somebody, or the
same annotator elsewhere, the other.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from statistics import fmean
from typing import Any

from tutelage.feedback.events import Event
from tutelage.feedback.gather import verdict, verdict_agreement
from tutelage.feedback.identity import comparison_key, p_first
from tutelage.feedback.reliability import annotators
from tutelage.feedback.store import PreferenceStore
from tutelage.records import Preference
from tutelage.tracking.atomic import null_non_finite

__all__ = ["AnnotatorSummary", "PairAgreement", "Summary", "summarize"]

_ACTIONS = ("skipped", "withdrawn", "flagged")


@dataclass(slots=True)
class AnnotatorSummary:
    """One annotator's share of a store."""

    name: str
    kind: str
    preferences: int = 0
    ties: int = 0
    skipped: int = 0
    withdrawn: int = 0
    flagged: int = 0
    revised: int = 0
    """Judgements that took the place of another one."""
    shared: int = 0
    """Preferences on comparisons that somebody else has judged as well."""
    accuracy: float | None = None
    """Share of right verdicts by Dawid and Skene's model; None where nothing is shared."""


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """How far two annotators agree on what both have judged."""

    first: str
    second: str
    comparisons: int
    share: float
    kappa: float | None
    """Cohen's kappa; None where each gave one and the same verdict throughout."""


@dataclass(slots=True)
class Summary:
    """The state of a store."""

    preferences: int = 0
    comparisons: int = 0
    """Different pairs of texts."""
    sources: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[str, int] = field(default_factory=dict)
    rounds: Mapping[str, int] = field(default_factory=dict)
    ties: int = 0
    duplicates: int = 0
    """Preferences whose annotator has said the same of the same texts under another id."""
    contradictions: int = 0
    """Comparisons decided both ways."""
    own_contradictions: int = 0
    """Of them, those that one annotator has decided both ways."""
    judged_by_several: int = 0
    """Comparisons that more than one annotator has judged."""
    shown_first_wins: float | None = None
    """Share of decided preferences for the answer that stands as `a`; None without any."""
    longer_wins: float | None = None
    """Share of decided preferences for the longer answer, those of equal length aside."""
    order_decides: float | None = None
    """Of those asked in both orders, the share whose verdict is another one in either order."""
    annotators: list[AnnotatorSummary] = field(default_factory=list)
    """By number of preferences, most first."""
    agreement: list[PairAgreement] = field(default_factory=list)
    """Every two annotators with a comparison in common, most shared first."""

    def to_json(self) -> dict[str, Any]:
        """All fields; null for numbers there are none of."""
        return null_non_finite(asdict(self))


def summarize(store: PreferenceStore) -> Summary:
    """Counts what stands in a store, and what its annotators did besides."""
    preferences = store.preferences()
    contents = [comparison_key(preference.comparison) for preference in preferences]
    by_content: dict[str, list[Preference]] = {}
    for content, preference in zip(contents, preferences, strict=True):
        by_content.setdefault(content, []).append(preference)
    groups = list(by_content.values())
    decided = [row for row in preferences if verdict(row.p_a) != "tie"]
    lengths = [
        (len(row.comparison.a) > len(row.comparison.b)) == (row.p_a > 0.5)
        for row in decided
        if len(row.comparison.a) != len(row.comparison.b)
    ]
    orders = [row.orders for row in preferences if row.orders is not None]
    return Summary(
        preferences=len(preferences),
        comparisons=len(groups),
        sources=_counted(row.comparison.prompt.source for row in preferences),
        kinds=_counted(row.kind for row in preferences),
        rounds=_counted(str(row.round) for row in preferences),
        ties=len(preferences) - len(decided),
        duplicates=sum(map(_duplicates, groups)),
        contradictions=sum(map(_contradict, groups)),
        own_contradictions=sum(any(map(_contradict, _by_annotator(group))) for group in groups),
        judged_by_several=sum(len({row.annotator for row in group}) > 1 for group in groups),
        shown_first_wins=_share(row.p_a > 0.5 for row in decided),
        longer_wins=_share(lengths),
        order_decides=_share(verdict(first) != verdict(second) for first, second in orders),
        annotators=_annotators(preferences, store.events()),
        agreement=_agreements(groups),
    )


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _share(values: Iterable[bool]) -> float | None:
    counted = list(values)
    return fmean(counted) if counted else None


def _by_annotator(group: Sequence[Preference]) -> Iterator[list[Preference]]:
    rows: dict[str, list[Preference]] = {}
    for row in group:
        rows.setdefault(row.annotator, []).append(row)
    yield from rows.values()


def _contradict(group: Sequence[Preference]) -> bool:
    return {"a", "b"} <= {verdict(p_first(row)) for row in group}


def _duplicates(group: Sequence[Preference]) -> int:
    """Repetitions of a verdict; what was said in another round is none."""
    said = Counter((row.annotator, row.round, round(p_first(row), 9)) for row in group)
    return sum(count - 1 for count in said.values())


def _annotators(
    preferences: Sequence[Preference], events: Sequence[Event]
) -> list[AnnotatorSummary]:
    rows: dict[str, AnnotatorSummary] = {}
    judged: set[tuple[str, str, int]] = set()
    for event in events:
        row = rows.setdefault(event.annotator, AnnotatorSummary(event.annotator, ""))
        if event.preference is not None:
            row.kind = event.preference.kind
            row.revised += event.key in judged
            judged.add(event.key)
        elif event.action in _ACTIONS:
            setattr(row, event.action, getattr(row, event.action) + 1)
    for preference in preferences:
        row = rows[preference.annotator]
        row.preferences += 1
        row.ties += verdict(preference.p_a) == "tie"
    for name, found in annotators(preferences, "dawid-skene").items():
        rows[name].shared = found.shared
        rows[name].accuracy = found.accuracy if found.shared else None
    return sorted(rows.values(), key=lambda row: (-row.preferences, row.name))


def _agreements(groups: Iterable[Sequence[Preference]]) -> list[PairAgreement]:
    verdicts: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for group in groups:
        said = {
            rows[0].annotator: verdict(fmean(map(p_first, rows))) for rows in _by_annotator(group)
        }
        for first, second in combinations(sorted(said), 2):
            verdicts.setdefault((first, second), []).append((said[first], said[second]))
    found = []
    for (first, second), rows in verdicts.items():
        agreed = verdict_agreement(rows)
        kappa = None if math.isnan(agreed.kappa) else agreed.kappa
        found.append(PairAgreement(first, second, agreed.num_comparisons, agreed.share, kappa))
    return sorted(found, key=lambda pair: (-pair.comparisons, pair.first, pair.second))
