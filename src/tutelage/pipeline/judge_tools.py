"""What one does with a judge: label pairs of files and stores, rate answers, report on itself.

files, stores ──> pairs, people's labels, sources ──judge──> verdicts ──> preferences
                                                         └── probes ──> report
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from tutelage.data.jsonl import read_jsonl, write_jsonl
from tutelage.data.judged_pairs import load_judged_pairs
from tutelage.errors import DataError
from tutelage.evaluation.judge_probes import Probed, chosen_for_probes, with_opinion
from tutelage.evaluation.judge_report import Judged, judge_report
from tutelage.feedback.location import is_store
from tutelage.feedback.store import PreferenceStore
from tutelage.judging import ModelJudge, Verdict
from tutelage.judging.model_judge import Progress
from tutelage.pipeline.judges import FunctionJudge
from tutelage.pipeline.reward_tools import answers_of
from tutelage.records import Comparison, Preference, Prompt

__all__ = [
    "Pairs",
    "cost_of",
    "label_pairs",
    "load_pairs",
    "names_a_store",
    "rate_samples",
    "report_on",
]

_STORES = (".db", ".sqlite", ".sqlite3")


@dataclass
class Pairs:
    """Comparisons, each once, with what is known of them."""

    comparisons: list[Comparison] = field(default_factory=list)
    people: dict[str, list[float]] = field(default_factory=dict)
    """P(a is better) of everyone who has judged a comparison, by its id."""
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Who wrote a and b, by the comparison's id."""

    def judged(self, verdicts: Sequence[Verdict]) -> list[Judged]:
        """The verdicts beside what people say."""
        return [
            Judged(
                verdict.comparison,
                verdict.orders,
                fmean(people) if (people := self.people.get(verdict.comparison.id)) else None,
                self.sources.get(verdict.comparison.id),
            )
            for verdict in verdicts
        ]


def names_a_store(name: str | Path) -> bool:
    """Whether to write to a preference store: to a database's URL, or a file of that name."""
    return "://" in str(name) or str(name).endswith(_STORES)


def load_pairs(places: Sequence[str | Path], limit: int | None = None) -> Pairs:
    """Comparisons of files and stores, the first `limit` of each, and the labels that they have.

    A file holds preferences, rows of RewardBench's form, or comparisons that nobody has judged.
    `source_a` and `source_b` of a row say who wrote the answers. What judge models have said
    before is no label of people's.

    Raises:
        DataError: a place cannot be read, or one id has different texts.
    """
    pairs, known = Pairs(), dict[str, Comparison]()
    for place in places:
        for comparison, people, sources in _rows(place, limit):
            first = known.setdefault(comparison.id, comparison)
            if first is comparison:
                pairs.comparisons.append(comparison)
            elif {first.a, first.b} != {comparison.a, comparison.b}:
                raise DataError(
                    f"{place}: pair {comparison.id!r} has other texts than one before it: give "
                    "each pair an id of its own"
                )
            exchanged = first.a != comparison.a
            if people is not None:
                label = 1.0 - people if exchanged else people
                pairs.people.setdefault(comparison.id, []).append(label)
            if sources is not None:
                pairs.sources[comparison.id] = sources[::-1] if exchanged else sources
    if not pairs.comparisons:
        raise DataError(f"no pair in {', '.join(map(str, places)) or 'no file at all'}")
    return pairs


Row = tuple[Comparison, float | None, tuple[str, str] | None]


def _rows(place: str | Path, limit: int | None) -> list[Row]:
    if is_store(place):
        with PreferenceStore(place) as store:
            return [_judged(row) for row in store.preferences()[:limit]]
    path = Path(place)
    first = next(read_jsonl(path))[1]
    if "p_a" in first or "chosen" in first:
        judged = map(_judged, load_judged_pairs(path, limit))
        sources = (_sources(row) for _, row in read_jsonl(path))
        return [(*row[:2], named) for row, named in zip(judged, sources, strict=False)]
    found: list[Row] = []
    for line, row in read_jsonl(path):
        if limit is not None and len(found) >= limit:
            break
        try:
            found.append((Comparison.from_json(row), None, _sources(row)))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}:{line}: expected a pair, with prompt, and chosen and rejected or a and "
                f"b: {error!r}"
            ) from error
    return found


def _judged(preference: Preference) -> Row:
    comparison = preference.comparison
    people = preference.p_a if preference.kind != "ai" else None
    return comparison, people, None


def _sources(row: Mapping[str, Any]) -> tuple[str, str] | None:
    both = row.get("source_a"), row.get("source_b")
    return (str(both[0]), str(both[1])) if None not in both else None


def label_pairs(preferences: Sequence[Preference], output: str | Path) -> int:
    """Writes preferences to a file, or adds them to a store; returns how many are new there."""
    if names_a_store(output):
        with PreferenceStore(output) as store:
            return store.add(preferences)
    return write_jsonl(output, [row.to_json() for row in preferences])


def report_on(
    judge: ModelJudge | FunctionJudge,
    pairs: Pairs,
    verdicts: Sequence[Verdict],
    *,
    probes: int = 0,
    own: str = "",
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """The judge's report, for which `probes` comparisons are asked again with opinions."""
    chosen = chosen_for_probes(pairs.comparisons, probes, seed=seed)
    opinions = [with_opinion(comparison, side) for comparison in chosen for side in ("a", "b")]
    said = judge.judge(opinions, progress) if opinions else []
    probed = [
        Probed(comparison, for_a.p_a, for_b.p_a)
        for comparison, for_a, for_b in zip(chosen, said[::2], said[1::2], strict=True)
    ]
    reached = [verdict for verdict in verdicts if verdict.failure != "budget"]
    report = judge_report(pairs.judged(reached), probed, own=own, seed=seed)
    report = {"judge": judge.name, **report, "left": len(verdicts) - len(reached)}
    if isinstance(judge, ModelJudge):
        report |= {
            "rubric": {"name": judge.rubric.name, "sha256": judge.rubric.sha256},
            "instructions": judge.instructions,
            "cost": cost_of(judge),
        }
    return report


def cost_of(judge: ModelJudge) -> dict[str, float]:
    """What has been asked and spent: now, and ever through the cache."""
    asker, ever = judge.asker, judge.asker.cache.spent
    counts = {name: asker.counts[name] for name in ("requests", "retries", "cached", "failed")}
    spent = {"tokens": asker.spent.tokens, "cost": asker.spent.cost}
    return counts | spent | {"tokens_ever": ever.tokens, "cost_ever": ever.cost}


def rate_samples(
    judge: ModelJudge, source: Path, target: Path, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Copies rows of a prompt with answers, and adds `ratings`: 1 to 10, null where unreadable.

    Returns:
        Numbers of answers rated and not, the mean rating, and the cost.
    """
    rows = [(line, row) for line, row in read_jsonl(source)]
    texts = [answers_of(row, f"{source}:{line}") for line, row in rows]
    prompts = [Prompt.from_json(row) for _, row in rows]
    flat = [(prompt, text) for prompt, each in zip(prompts, texts, strict=True) for text in each]
    ratings = judge.rate([prompt for prompt, _ in flat], [text for _, text in flat], progress)
    left = iter(ratings)
    rated = (
        {**row, "ratings": [next(left).value for _ in each]}
        for (_, row), each in zip(rows, texts, strict=True)
    )
    write_jsonl(target, rated)
    values = [rating.value for rating in ratings if rating.value is not None]
    return {
        "judge": judge.name,
        "answers": len(flat),
        "rated": len(values),
        "left": sum(rating.failure == "budget" for rating in ratings),
        "mean": fmean(values) if values else None,
        "parse_rate": judge.parse_rate,
        "cost": cost_of(judge),
    }
