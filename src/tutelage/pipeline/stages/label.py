"""Asks annotators which of two completions is better, and keeps every answer.

samples ──pairs──> comparisons ──annotator──> preferences ──> store, preferences.jsonl
"""

import json
from collections import Counter
from collections.abc import Sequence

from tutelage.config import LabelStage
from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import load_samples
from tutelage.errors import DataError
from tutelage.feedback.gather import Gatherer, pairs
from tutelage.feedback.store import PreferenceStore
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.helpdesk import world_spec
from tutelage.records import Comparison, Preference
from tutelage.worlds.helpdesk import Ledger, People, SimulatedJudge

__all__ = ["run"]

_AT_ONCE = 500


def run(config: LabelStage, context: StageContext) -> dict[str, float]:
    """Builds comparisons, has them judged, and writes the preferences."""
    samples = load_samples(context.resolve(config.samples, "samples.jsonl"))
    built = pairs(samples, per_prompt=config.pairs_per_prompt, seed=context.seed)
    comparisons = built.comparisons[: config.limit]
    if not comparisons:
        raise DataError(
            f"the samples of {len(samples)} prompts give no pair of different completions: draw "
            "at least 2 samples per prompt, at a temperature above 0"
        )
    annotator = _annotator(config, context.seed)
    with PreferenceStore(context.folder / "preferences.sqlite") as store:
        for start in range(0, len(comparisons), _AT_ONCE):
            store.add(annotator.label(comparisons[start : start + _AT_ONCE]))
            context.progress.step(min(start + _AT_ONCE, len(comparisons)), len(comparisons))
        preferences = store.preferences()
    write_jsonl(context.folder / "preferences.jsonl", [row.to_json() for row in preferences])
    summary = _summary(config, preferences, comparisons, context.seed)
    (context.folder / "labels.json").write_text(json.dumps(summary, indent=2) + "\n")
    return {
        "preferences": float(len(preferences)),
        "identical_pairs": float(built.num_identical),
        "cost": float(summary["cost"]),
        "prefers_longer": summary["prefers_longer"],
    }


def _annotator(config: LabelStage, seed: int) -> Gatherer:
    spec = world_spec(config.preset)
    return People(spec, seed) if config.annotator == "people" else SimulatedJudge(spec)


def _summary(
    config: LabelStage,
    preferences: Sequence[Preference],
    comparisons: Sequence[Comparison],
    seed: int,
) -> dict[str, object]:
    """Who answered, what it cost, and whether the longer completion tends to win."""
    ledger = Ledger()
    ledger.charge("human" if config.annotator == "people" else "ai", len(preferences))
    longer = [_longer_wins(row) for row in preferences]
    decided = [value for value in longer if value is not None]
    return {
        "annotators": dict(Counter(row.annotator for row in preferences)),
        "cost": ledger.spent,
        "prefers_longer": sum(decided) / max(1, len(decided)),
        "agreement": {},
    }


def _longer_wins(preference: Preference) -> float | None:
    """Probability given to the completion with more words; None when they have as many."""
    a = len(preference.comparison.a.split())
    b = len(preference.comparison.b.split())
    if a == b:
        return None
    return preference.p_a if a > b else 1.0 - preference.p_a
