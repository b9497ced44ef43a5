"""Asks annotators which of two completions is better, and keeps every answer.

samples ──pairs──> comparisons ──annotator──> preferences ──> store, preferences.jsonl
stage choose ─────────^ └──feedback: humans──> annotation page ──> `people`
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from tutelage.config import LabelStage
from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import load_comparisons, load_samples
from tutelage.feedback.gather import Agreement, Gatherer, agreement, pairs_of_samples
from tutelage.feedback.store import PreferenceStore
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.helpdesk import world_spec
from tutelage.pipeline.stages.people import ask_people
from tutelage.records import Comparison, Preference
from tutelage.tracking.atomic import write_json_atomically
from tutelage.worlds.helpdesk import Ledger, People, SimulatedJudge

__all__ = ["run"]

_AT_ONCE = 500
_SECOND_OPINION = 10
"""Every tenth comparison is judged a second time, to measure agreement."""


def run(config: LabelStage, context: StageContext) -> dict[str, float]:
    """Builds comparisons, has them judged, and writes the preferences."""
    comparisons, identical = _comparisons(config, context)
    ledger = Ledger()
    if config.feedback == "humans":
        preferences, agreed = ask_people(config.humans, comparisons, context)
        ledger.charge("human", len(preferences))
        return _write(preferences, "among people", agreed, identical, ledger, context)
    annotate = _annotator(config, context.seed)
    with PreferenceStore(context.folder / "preferences.sqlite") as store:
        for start in range(0, len(comparisons), _AT_ONCE):
            store.add(annotate(comparisons[start : start + _AT_ONCE]))
            context.progress.step(min(start + _AT_ONCE, len(comparisons)), len(comparisons))
        preferences = store.preferences()
    again = _annotator(config, context.seed + 1)(comparisons[::_SECOND_OPINION])
    agreed = agreement(preferences, again)
    source: Literal["human", "ai"] = "human" if config.annotator == "people" else "ai"
    ledger.charge(source, len(preferences) + len(again))
    return _write(preferences, "second opinion", agreed, identical, ledger, context)


def _write(
    preferences: Sequence[Preference],
    agreement_of: str,
    agreed: Agreement | None,
    identical: int,
    ledger: Ledger,
    context: StageContext,
) -> dict[str, float]:
    """Writes the stage's files and returns its figures."""
    write_jsonl(context.folder / "preferences.jsonl", [row.to_json() for row in preferences])
    longer = [value for row in preferences if (value := _longer_wins(row)) is not None]
    prefers_longer = sum(longer) / max(1, len(longer))
    summary: dict[str, object] = {
        "annotators": dict(Counter(row.annotator for row in preferences)),
        "cost": ledger.spent,
        "prefers_longer": prefers_longer,
        "agreement": {},
    }
    if agreed is not None:
        summary["agreement"] = {
            agreement_of: {
                "pairs": agreed.num_comparisons,
                "share": agreed.share,
                "kappa": None if math.isnan(agreed.kappa) else agreed.kappa,
            }
        }
    write_json_atomically(context.folder / "labels.json", summary)
    figures = {
        "preferences": float(len(preferences)),
        "identical_pairs": float(identical),
        "prefers_longer": prefers_longer,
        "cost": float(ledger.spent),
    }
    return figures if agreed is None else figures | {"agreement": agreed.share}


def _comparisons(config: LabelStage, context: StageContext) -> tuple[list[Comparison], int]:
    """What to ask about, and how many pairs of the samples had the same text twice."""
    if config.comparisons is not None:
        path = context.resolve(config.comparisons, f"{config.annotator or 'people'}.jsonl")
        return load_comparisons(path, config.limit), 0
    assert config.samples is not None, "the configuration has one of the two"
    samples = load_samples(context.resolve(config.samples, "samples.jsonl"))
    found = pairs_of_samples(samples, count=config.pairs_per_prompt, seed=context.seed)
    return list(found.comparisons[: config.limit]), found.num_identical


def _annotator(config: LabelStage, seed: int) -> Gatherer:
    spec = world_spec(config.preset)
    if config.annotator == "people":
        return People(spec, seed).label
    return SimulatedJudge(spec, wrong_category=config.wrong_category).label


def _longer_wins(preference: Preference) -> float | None:
    """Probability given to the completion with more words; None when they have as many."""
    a = len(preference.comparison.a.split())
    b = len(preference.comparison.b.split())
    if a == b:
        return None
    return preference.p_a if a > b else 1.0 - preference.p_a
