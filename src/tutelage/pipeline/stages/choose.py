"""Builds comparisons from samples, and chooses whom to ask about which.

    samples ──pairs──> comparisons ─┐                         ┌─> people.jsonl   ──label──> people
    reward models ──────> margins ──┼─> candidates ──route──> ┼─> judge.jsonl    ──label──> judge
    judged ──> the judge's answers ─┘                         └─> answered.jsonl: what it has said

Asking is left to `label` stages: the same comparisons go to simulated people, to real ones or to
any judge, and a second choice can build on what the answers to the first taught the reward models.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from tutelage.config import ChooseStage
from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import load_preferences, load_samples
from tutelage.errors import DataError
from tutelage.feedback.choice import STRATEGIES, Candidate, Strategy
from tutelage.feedback.gather import Pairing, pairs, turned
from tutelage.feedback.routing import Costs, Routing, route
from tutelage.feedback.trust import Trust, compared, trusted_confidence
from tutelage.models import RewardModel
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import device, share_out
from tutelage.pipeline.stages.reward_ensemble import member_folders
from tutelage.records import Comparison, Preference, Prompt
from tutelage.tracking.atomic import write_json_atomically

__all__ = ["run"]

_NOBODY = Trust(confidence=2.0, bound=1.0, coverage=0.0, labels=0)
"""No judge is as sure as that."""
Texts = list[tuple[str, int]]
"""Completions of a prompt, each with the number of the samples it comes from."""


def run(config: ChooseStage, context: StageContext) -> dict[str, float]:
    """Writes who is asked about which comparison, and why."""
    prompts, texts = _gather(config, context)
    scores = _score(config, context, prompts, texts)
    people, judge = _judged(config, context)
    trust = _trust(config, people, judge, context)
    candidates, left_out = [], Counter[str]()
    for name, prompt in prompts.items():
        pairing = _pairing(config, prompt, texts[name], scores.get(name, {}), context.seed)
        left_out["identical"] += pairing.num_identical
        for comparison in pairing.comparisons:
            if comparison.id in people:
                left_out["judged by people"] += 1
            elif (margins := _margins(comparison, scores.get(name))) is None:
                left_out["too long"] += 1
            else:
                candidates.append(_candidate(comparison, margins, judge.get(comparison.id)))
    if not candidates:
        raise DataError(
            f"the samples of {len(prompts)} prompts leave nothing to compare ("
            + (", ".join(f"{n} {why}" for why, n in left_out.items() if n) or "one text each")
            + "): draw at least 2 samples per prompt, at a temperature above 0"
        )
    routed = route(
        candidates,
        budget=config.budget,
        people=config.people,
        shares=_shares(config),
        categories=config.categories,
        per_prompt=config.per_prompt,
        trusted=trust.confidence if trust else 0.0,
        costs=Costs(config.costs.people, config.costs.judge),
        seed=context.seed,
    )
    _write(routed, judge, context.folder)
    summary = {
        **_summary(routed, len(candidates), left_out),
        "trust": asdict(trust) if trust else None,
    }
    write_json_atomically(context.folder / "choice.json", summary)
    numbers = ("people", "judge", "answered", "distrusted", "withheld", "unaffordable", "units")
    return {"candidates": float(len(candidates))} | {name: float(summary[name]) for name in numbers}


def _gather(
    config: ChooseStage, context: StageContext
) -> tuple[dict[str, Prompt], dict[str, Texts]]:
    """The completions of every prompt, from all samples."""
    prompts: dict[str, Prompt] = {}
    texts: dict[str, Texts] = {}
    for number, path in enumerate(context.resolve_all(config.samples, "samples.jsonl")):
        for row in load_samples(path, config.limit):
            name = row.prompt.id
            if prompts.setdefault(name, row.prompt).messages != row.prompt.messages:
                raise DataError(
                    f"{path}: prompt {name!r} has other messages than in the samples before: "
                    "answers can be compared where they answer the same; give other ids"
                )
            texts.setdefault(name, []).extend((text, number) for text in row.completions)
    return prompts, texts


def _score(
    config: ChooseStage,
    context: StageContext,
    prompts: Mapping[str, Prompt],
    texts: Mapping[str, Texts],
) -> dict[str, dict[str, tuple[float, ...] | None]]:
    """Prompt -> completion -> its score by each reward model; None for one that is too long."""
    folders = [
        folder
        for reference in config.reward
        for folder in member_folders(context.resolve(reference, "model"))
    ]
    if not folders:
        return {}
    if config.shares.disagreement and len(folders) < 2:
        raise DataError(
            f"reward {config.reward[0]!r} is one model alone, which cannot disagree: train it with "
            "`ensemble`, or give several"
        )
    asked = [(name, text) for name in texts for text in dict.fromkeys(t for t, _ in texts[name])]
    columns = []
    for done, folder in enumerate(folders, 1):
        model = RewardModel.load(folder).eval().requires_grad_(False)
        model.to(device())
        columns.append(
            model.score(
                [prompts[name] for name, _ in asked],
                [text for _, text in asked],
                cores=share_out(context, model),
            )
        )
        context.progress.step(done, len(folders))
    scores: dict[str, dict[str, tuple[float, ...] | None]] = {name: {} for name in texts}
    for (name, text), *row in zip(asked, *columns, strict=True):
        known = [score for score in row if score is not None]
        scores[name][text] = tuple(known) if len(known) == len(row) else None
    return scores


def _judged(
    config: ChooseStage, context: StageContext
) -> tuple[dict[str, list[Preference]], dict[str, Preference]]:
    """By comparison, what people have said, and what a judge has."""
    people: dict[str, list[Preference]] = {}
    judge = {}
    for path in context.resolve_all(config.judged, "preferences.jsonl"):
        for row in load_preferences(path):
            if row.kind == "human":
                people.setdefault(row.comparison.id, []).append(row)
            elif row.kind == "ai":
                judge[row.comparison.id] = row
    return people, judge


def _trust(
    config: ChooseStage,
    people: Mapping[str, Sequence[Preference]],
    judge: Mapping[str, Preference],
    context: StageContext,
) -> Trust | None:
    """How sure the judge must be, from the comparisons that people have judged as well."""
    if config.trust is None:
        return None
    verdicts = []
    for name in people.keys() & judge.keys():
        its = judge[name]
        theirs = fmean(turned(row, its.comparison).p_a for row in people[name])
        if (verdict := compared(its.p_a, its.orders, theirs)) is not None:
            verdicts.append(verdict)
    trust = trusted_confidence(
        verdicts, disagreement=config.trust.disagreement, failure=config.trust.failure
    )
    if trust is None:
        context.progress.message(
            f"at no confidence does the judge differ from people in at most "
            f"{config.trust.disagreement:.0%} of {len(verdicts)} comparisons: none of its answers "
            "stands"
        )
        return _NOBODY
    context.progress.message(
        f"the judge's answers stand from confidence {trust.confidence:.2f} on: "
        f"{trust.coverage:.0%} of those that people have seen, of which at most "
        f"{trust.bound:.1%} differ from people's"
    )
    return trust


def _pairing(
    config: ChooseStage,
    prompt: Prompt,
    texts: Texts,
    scores: Mapping[str, tuple[float, ...] | None],
    seed: int,
) -> Pairing:
    among: Iterable[tuple[int, int]] = combinations(range(len(texts)), 2)
    if config.pairs == "across":
        among = [(i, j) for i, j in among if texts[i][1] != texts[j][1]]
    elif config.pairs == "extremes":
        among = _extremes([scores[text] for text, _ in texts])
    return pairs(
        prompt,
        [text for text, _ in texts],
        among=among,
        count=config.pairs_per_prompt,
        seed=seed,
    )


def _extremes(scores: Sequence[tuple[float, ...] | None]) -> list[tuple[int, int]]:
    """The best of n and the worst; the first of equals."""
    known = [(fmean(score), place) for place, score in enumerate(scores) if score is not None]
    if len(known) < 2:
        return []
    best = max(known, key=lambda row: row[0])[1]
    worst = min(known, key=lambda row: row[0])[1]
    return [] if best == worst else [(min(best, worst), max(best, worst))]


def _margins(
    comparison: Comparison, scores: Mapping[str, tuple[float, ...] | None] | None
) -> tuple[float, ...] | None:
    """r_a - r_b by each reward model; None where one of the answers could not be scored."""
    if scores is None:
        return ()
    a, b = scores[comparison.a], scores[comparison.b]
    return None if a is None or b is None else tuple(x - y for x, y in zip(a, b, strict=True))


def _candidate(
    comparison: Comparison, margins: tuple[float, ...], judged: Preference | None
) -> Candidate:
    said = None if judged is None else turned(judged, comparison)
    return Candidate(
        comparison,
        (len(comparison.a.split()), len(comparison.b.split())),
        margins,
        None if said is None else said.p_a,
        None if said is None else said.orders,
    )


def _shares(config: ChooseStage) -> dict[Strategy, float]:
    shares: dict[Strategy, float] = {name: getattr(config.shares, name) for name in STRATEGIES}
    return shares if any(shares.values()) else {"random": 1.0}


def _write(routed: Routing, judge: Mapping[str, Preference], folder: Path) -> None:
    people = [
        {**chosen.candidate.comparison.to_json(), "reason": chosen.reason}
        for chosen in routed.people
    ]
    write_jsonl(folder / "people.jsonl", people)
    write_jsonl(folder / "judge.jsonl", [row.comparison.to_json() for row in routed.judge])
    answered = [judge[row.comparison.id].to_json() for row in routed.answered]
    write_jsonl(folder / "answered.jsonl", answered)


def _summary(routed: Routing, candidates: int, left_out: Mapping[str, int]) -> dict[str, Any]:
    """What `choice.json` holds."""
    return {
        "candidates": candidates,
        "left_out": dict(left_out),
        "people": len(routed.people),
        "reasons": dict(Counter(chosen.reason for chosen in routed.people)),
        "people_by_category": dict(Counter(row.candidate.category for row in routed.people)),
        "judge": len(routed.judge),
        "answered": len(routed.answered),
        "distrusted": len(routed.distrusted),
        "withheld": len(routed.withheld),
        "unaffordable": len(routed.unaffordable),
        "units": routed.units,
    }
