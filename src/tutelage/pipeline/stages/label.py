"""Asks annotators which of two completions is better, and keeps every answer.

samples ──pairs──> comparisons ──annotator──> preferences ──> store, preferences.jsonl
stage choose ─────────^ ├──feedback: humans──> annotation page ──> `people`
                        └──feedback: judge───> judge model, both orders
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tutelage.config import LabelStage
from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import load_comparisons, load_samples
from tutelage.errors import JudgeError
from tutelage.feedback.gather import Agreement, Gatherer, agreement, pairs_of_samples
from tutelage.feedback.store import PreferenceStore
from tutelage.judging.model_judge import OVER_BUDGET
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.judges import labelling_judge
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
    if config.feedback == "humans":
        preferences, agreed = ask_people(config.humans, comparisons, context)
        labels = _Labels(preferences, "among people", agreed)
    elif config.feedback == "judge":
        labels = _ask_judge(config, comparisons, context)
    else:
        labels = _simulate(config, comparisons, context)
    return _write(labels, context.folder) | {"identical_pairs": float(identical)}


@dataclass(frozen=True)
class _Labels:
    """What an annotator said, and what is known of it."""

    preferences: Sequence[Preference]
    agreement_of: str = ""
    agreed: Agreement | None = None
    repeated: int = 0
    """Labels that were paid for to measure agreement."""
    figures: Mapping[str, float] = field(default_factory=dict)


def _simulate(
    config: LabelStage, comparisons: Sequence[Comparison], context: StageContext
) -> _Labels:
    annotate = _annotator(config, context.seed)
    with PreferenceStore(context.folder / "preferences.sqlite") as store:
        for start in range(0, len(comparisons), _AT_ONCE):
            store.add(annotate(comparisons[start : start + _AT_ONCE]))
            context.progress.step(min(start + _AT_ONCE, len(comparisons)), len(comparisons))
        preferences = store.preferences()
    again = _annotator(config, context.seed + 1)(comparisons[::_SECOND_OPINION])
    return _Labels(preferences, "second opinion", agreement(preferences, again), len(again))


def _ask_judge(
    config: LabelStage, comparisons: Sequence[Comparison], context: StageContext
) -> _Labels:
    """Asks in both orders; what the judge cannot tell has no label.

    Raises:
        JudgeError: the budget ended it, or more comparisons than allowed have no label. Replies so
            far are kept, unless they came from a function.
    """
    assert config.judge is not None, "the stage is refused without"
    with ExitStack() as opened:
        judge = labelling_judge(config.judge, context.replies, opened, context.progress.message)
        verdicts = judge.judge(comparisons, context.progress.step)
        preferences = judge.preferences(verdicts)
    reached = [verdict for verdict in verdicts if verdict.failure != OVER_BUDGET]
    if len(reached) < len(verdicts):
        raise JudgeError(
            f"{judge.name}: the budget ended after {len(reached)} of {len(verdicts)} comparisons: "
            f"raise it in {config.judge} and run the same again, which goes on from there"
        )
    unscorable = [verdict for verdict in verdicts if verdict.p_a is None]
    if len(unscorable) > config.max_failed_share * len(verdicts):
        reasons = Counter(verdict.failure or "it cannot tell" for verdict in unscorable)
        shown = "; ".join(f"{count} times {why}" for why, count in reasons.most_common(3))
        raise JudgeError(
            f"{judge.name} gave no verdict on {len(unscorable)} of {len(verdicts)} comparisons, "
            f"and max_failed_share is {config.max_failed_share:g}: {shown}"
        )
    contradicted = [verdict.winner == "tie" for verdict in verdicts if verdict.p_a is not None]
    figures = {
        "unscorable": float(len(unscorable)),
        "contradictions": sum(contradicted) / max(1, len(contradicted)),
    }
    return _Labels(preferences, figures=figures)


def _write(labels: _Labels, folder: Path) -> dict[str, float]:
    """Writes the stage's files and returns its figures."""
    preferences, agreed = labels.preferences, labels.agreed
    write_jsonl(folder / "preferences.jsonl", [row.to_json() for row in preferences])
    longer = [value for row in preferences if (value := _longer_wins(row)) is not None]
    prefers_longer = sum(longer) / max(1, len(longer))
    ledger = Ledger()
    ledger.charge(_source(preferences), len(preferences) + labels.repeated)
    summary: dict[str, object] = {
        "annotators": dict(Counter(row.annotator for row in preferences)),
        "cost": ledger.spent,
        "prefers_longer": prefers_longer,
        "agreement": {},
        **labels.figures,
    }
    if agreed is not None:
        summary["agreement"] = {
            labels.agreement_of: {
                "pairs": agreed.num_comparisons,
                "share": agreed.share,
                "kappa": None if math.isnan(agreed.kappa) else agreed.kappa,
            }
        }
    write_json_atomically(folder / "labels.json", summary)
    figures = {
        "preferences": float(len(preferences)),
        "prefers_longer": prefers_longer,
        "cost": float(ledger.spent),
        **labels.figures,
    }
    return figures if agreed is None else figures | {"agreement": agreed.share}


def _source(preferences: Sequence[Preference]) -> Literal["human", "ai"]:
    return "ai" if preferences and preferences[0].kind == "ai" else "human"


def _comparisons(config: LabelStage, context: StageContext) -> tuple[list[Comparison], int]:
    """What to ask about, and how many pairs of the samples had the same text twice."""
    if config.comparisons is not None:
        path = context.resolve(config.comparisons, f"{config.asked}.jsonl")
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
