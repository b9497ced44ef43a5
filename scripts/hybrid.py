"""What feedback buys on the helpdesk world: people, a judge, both, and who is asked about what.

    python scripts/hybrid.py runs/hybrid/seed0 runs/hybrid/seed1 --output runs/hybrid/measured

    stages sft, samples of each run ──> comparisons ─┬─ held-out prompts: gold, people ──> accuracy
                                                     └─ the others ──arms──> reward models ──┘

Each run is one of recipes/hybrid.yaml, whose seed also draws people and held-out prompts. All arms
spend the same units; a curve adds people's labels, chosen in rounds, to a model that has learned
from the judge. All is done twice: with a judge that is right about every category, and with one
that prefers the worse answer to look-alikes. Results are kept in a file per run, and not measured
again where it is there. Prints Markdown.
"""

import argparse
import copy
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tutelage.config import BatchConfig, OptimizerConfig
from tutelage.data.loaders import Samples, load_samples
from tutelage.evaluation.helpdesk import HelpdeskRater
from tutelage.evaluation.rater import Answer
from tutelage.evaluation.scored_pairs import ScoredPairs
from tutelage.feedback.choice import Candidate, Strategy, choose
from tutelage.feedback.gather import pairs
from tutelage.feedback.routing import Costs
from tutelage.models import RewardModel
from tutelage.records import Comparison, Preference
from tutelage.tracking.comparison import student_interval
from tutelage.trainers.learner import Learner
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.reward import (
    ComparedAnswers,
    Minibatches,
    encode_comparisons,
    margins,
    preference_margins,
    train_reward,
)
from tutelage.worlds.helpdesk import People, SimulatedJudge, WorldSpec

__all__ = ["Measured", "load", "main", "measure", "table"]

BUDGET = 8_800
"""Units of every arm: 800 labels of people, or 8,800 of the judge."""
SLICE = "lookalike"
"""The category on which the second judge is wrong in sign: 15 % of the prompts."""
HELD_OUT = 600
"""Prompts whose comparisons measure the reward models."""
MEMBERS = 3
"""Reward models whose disagreement chooses."""
POOL = 2_200
"""Comparisons that the judge has answered, out of which people's are chosen."""
CURVE = (100, 200, 400)
"""People's labels after each round; the last number is what half of the budget pays for."""
STRATEGIES: dict[str, dict[Strategy, float]] = {
    "random": {"random": 1.0},
    "disagreement": {"random": 0.2, "disagreement": 0.8},
    "conflict": {"random": 0.2, "conflict": 0.8},
}
"""How the labels of a round are chosen; the first round is random for all."""

AI_PHASE = {"epochs": 1.0, "rate": 1e-3, "minibatch": 64}
PEOPLE_PHASE = {"epochs": 1.0, "rate": 3e-4, "minibatch": 32}
PEOPLE_ALONE = {"epochs": 3.0, "rate": 1e-3, "minibatch": 64}


@dataclass(frozen=True)
class Measured:
    """Accuracies of one reward model on held-out comparisons."""

    judge: str
    """`right` on all categories, or `wrong` on one."""
    arm: str
    people: int
    """Labels of people."""
    ai: int
    """Labels of the judge."""
    gold: float
    """Agreement with gold, ties of gold left out."""
    agreed: float
    """Agreement with one person's label of each comparison."""
    wrong_slice: float
    """Agreement with gold on the look-alikes."""
    rest: float
    """Agreement with gold on all other prompts."""

    @property
    def units(self) -> int:
        """What the labels cost."""
        return self.people * Costs().people + self.ai * Costs().judge


@dataclass(frozen=True)
class Material:
    """One run's comparisons."""

    seed: int
    backbone: Path
    prompts: tuple[tuple[Comparison, ...], ...]
    """Comparisons to learn from, prompt by prompt, in random order."""
    gold: tuple[Preference, ...]
    """Held-out comparisons as gold has them."""
    people: tuple[Preference, ...]
    """The same comparisons as people have them."""

    def comparisons(self, count: int, categories: Callable[[str], bool]) -> list[Comparison]:
        """The first `count` of the prompts in some categories, whole prompts first."""
        rows = (row for prompt in self.prompts for row in prompt if categories(row.prompt.category))
        return [row for row, _ in zip(rows, range(count), strict=False)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every run and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    asked = parser.parse_args(arguments)
    asked.output.mkdir(parents=True, exist_ok=True)
    results = [measure(run, asked.output / f"{run.name}.json") for run in asked.runs]
    print("\n".join([*table(results, "arm"), "", *table(results, "curve")]))


def measure(run: Path, kept: Path) -> list[Measured]:
    """The accuracies of all arms on one run, from the file where they are kept if it is there."""
    if kept.is_file():
        return [Measured(**row) for row in json.loads(kept.read_text("utf-8"))]
    material = load(run)
    found = []
    for row in _arms(material):
        found.append(row)
        print(f"{run.name}: {row}", file=sys.stderr, flush=True)
    kept.write_text(json.dumps([asdict(row) for row in found], indent=2) + "\n", "utf-8")
    return found


def load(run: Path) -> Material:
    """The comparisons of a run, dealt out to learning and measuring by prompt."""
    seed = json.loads((run / "summary.json").read_text("utf-8"))["seed"]
    stages = run / "stages"
    samples = load_samples(stages / "samples" / "samples.jsonl")
    random.Random(f"hybrid {seed}").shuffle(samples)
    built = [pairs(row.prompt, row.completions, seed=seed).comparisons for row in samples]
    held_out = [row for comparisons in built[:HELD_OUT] for row in comparisons]
    gold = _gold(held_out, samples[:HELD_OUT])
    people = People(WorldSpec.nano(), seed=seed + 1_000)
    return Material(
        seed=seed,
        backbone=stages / "sft" / "model",
        prompts=tuple(built[HELD_OUT:]),
        gold=tuple(gold),
        people=tuple(people.label([row.comparison for row in gold])),
    )


def _gold(comparisons: Sequence[Comparison], samples: Sequence[Samples]) -> list[Preference]:
    """What gold prefers; comparisons that are worth the same to it are left out."""
    cut = {
        (row.prompt.id, text)
        for row in samples
        for text, truncated in zip(row.completions, row.truncated, strict=True)
        if truncated
    }
    prompts = [row.prompt for row in comparisons]
    values = [
        HelpdeskRater().rate(
            prompts,
            [
                Answer(text, ended=(prompt.id, text) not in cut)
                for prompt, text in zip(prompts, texts, strict=True)
            ],
        )["gold"]
        for texts in ([row.a for row in comparisons], [row.b for row in comparisons])
    ]
    return [
        Preference(row, float(a > b), "gold", "synthetic")
        for row, a, b in zip(comparisons, *values, strict=True)
        if a is not None and b is not None and abs(a - b) > 1e-9
    ]


def _arms(material: Material) -> Iterator[Measured]:
    people = People(WorldSpec.nano(), material.seed)
    half = BUDGET // 2
    few = half // Costs().people
    everything = material.comparisons(BUDGET, lambda category: True)
    alone = people.label(random.Random(material.seed).sample(everything, BUDGET // Costs().people))
    model = _trained(_fresh(material, 0), alone, PEOPLE_ALONE)
    held_out, _ = encode_comparisons(model, material.gold)
    for judge, wrong in (("right", None), ("wrong", SLICE)):
        ai = SimulatedJudge(WorldSpec.nano(), wrong_category=wrong)
        measured = _Meter(material, held_out, judge)
        yield measured("arm: people alone", model, len(alone), 0)
        ai_alone = _trained(_fresh(material, 0), ai.label(everything), AI_PHASE)
        yield measured("arm: judge alone", ai_alone, 0, BUDGET)

        judged = ai.label(everything[:half])
        some = random.Random(material.seed).sample(everything[:half], few)
        union = _trained(_fresh(material, 0), [*judged, *people.label(some)], AI_PHASE)
        yield measured("arm: union", union, few, half)

        ensemble = [_trained(_fresh(material, i), judged, AI_PHASE) for i in range(MEMBERS)]
        yield measured("curve: random", ensemble[0], 0, half)
        pool = judged[:POOL]
        shares: dict[Strategy, float] = {"random": 0.2, "doubt": 0.4, "disagreement": 0.4}
        asked = choose(_candidates(pool, ensemble), few, shares, seed=material.seed)
        labels = people.label([row.candidate.comparison for row in asked])
        routed = _with_people(ensemble[0], labels)
        yield measured("arm: routed by doubt and disagreement", routed, few, half)
        yield from _routed_by_category(material, people, ai, measured)
        yield from _curve(material, people, pool, ensemble, measured)


def _routed_by_category(
    material: Material, people: People, ai: SimulatedJudge, measured: "_Meter"
) -> Iterator[Measured]:
    """The judge is not asked about the slice; half of people's labels are about it."""
    half = BUDGET // 2
    judged = ai.label(material.comparisons(half, lambda category: category != SLICE))
    seen = {row.comparison.prompt.id for row in judged}
    last = max(i for i, rows in enumerate(material.prompts) if rows and rows[0].prompt.id in seen)
    theirs = [
        Candidate(row)
        for rows in material.prompts[: last + 1]
        for row in rows
        if row.prompt.category == SLICE
    ]
    candidates = [*theirs, *_candidates(judged, [])]
    shares: dict[Strategy, float] = {"random": 0.5, "category": 0.5}
    asked = choose(candidates, CURVE[-1], shares, categories=[SLICE], seed=material.seed)
    labels = people.label([row.candidate.comparison for row in asked])
    random.Random(material.seed).shuffle(labels)
    taught = _trained(_fresh(material, 0), judged, AI_PHASE)
    yield measured("curve: category", taught, 0, half)
    for count in CURVE:
        model = _with_people(taught, labels[:count])
        yield measured("curve: category", model, count, half)
    yield measured("arm: routed by category", model, CURVE[-1], half)


def _curve(
    material: Material,
    people: People,
    pool: Sequence[Preference],
    ensemble: Sequence[RewardModel],
    measured: "_Meter",
) -> Iterator[Measured]:
    """People's labels in rounds, each chosen by models that have learned from those before."""
    half = BUDGET // 2
    asked = choose(_candidates(pool, []), CURVE[0], STRATEGIES["random"], seed=material.seed)
    first = people.label([row.candidate.comparison for row in asked])
    taught = [_with_people(member, first, seed=i) for i, member in enumerate(ensemble)]
    for strategy, shares in STRATEGIES.items():
        labels, models = list(first), taught
        yield measured(f"curve: {strategy}", models[0], len(labels), half)
        for number, count in enumerate(CURVE[1:], 1):
            done = {row.comparison.id for row in labels}
            remaining = [row for row in pool if row.comparison.id not in done]
            candidates = _candidates(remaining, [] if strategy == "random" else models)
            seed = material.seed * len(CURVE) + number
            asked = choose(candidates, count - len(labels), shares, seed=seed)
            labels += people.label([row.candidate.comparison for row in asked])
            # Nobody asks the other members where nothing more is chosen by them.
            alone = count == CURVE[-1] or strategy == "random"
            models = [
                _with_people(member, labels, seed=i)
                for i, member in enumerate(ensemble[: 1 if alone else None])
            ]
            yield measured(f"curve: {strategy}", models[0], count, half)
        if strategy == "random":
            yield measured("arm: judge, then people", models[0], count, half)


def _with_people(model: RewardModel, labels: Sequence[Preference], *, seed: int = 0) -> RewardModel:
    """A copy of a model that has learned from the judge, after people's labels."""
    return _trained(copy.deepcopy(model), labels, PEOPLE_PHASE, seed=seed)


def _fresh(material: Material, member: int) -> RewardModel:
    torch.manual_seed(material.seed * MEMBERS + member)
    return RewardModel.load(material.backbone)


def _trained(
    model: RewardModel, labels: Sequence[Preference], phase: dict[str, float], *, seed: int = 0
) -> RewardModel:
    """The model, trained in place."""
    groups, _ = encode_comparisons(model, labels)
    minibatch = int(phase["minibatch"])
    steps = max(1, round(phase["epochs"] * len(labels) / minibatch))
    source = torch.Generator().manual_seed(seed)
    optimizer = Optimizer(
        model.model, OptimizerConfig(learning_rate=phase["rate"], warmup=0.03), steps
    )
    batch = BatchConfig(minibatch=minibatch, microbatch_tokens=1024)
    learner = Learner({"reward_model": optimizer}, batch, source)
    for _ in train_reward(model, learner, Minibatches(groups, minibatch, steps, source)):
        pass
    return model.eval()


def _candidates(judged: Sequence[Preference], models: Sequence[RewardModel]) -> list[Candidate]:
    columns = [preference_margins(model, judged) for model in models]
    return [
        Candidate(
            row.comparison,
            (len(row.comparison.a.split()), len(row.comparison.b.split())),
            tuple(column[place] or 0.0 for column in columns),
            row.p_a,
            row.orders,
        )
        for place, row in enumerate(judged)
    ]


@dataclass(frozen=True)
class _Meter:
    """Measures reward models on the held-out comparisons of a run."""

    material: Material
    held_out: Sequence[ComparedAnswers]
    """The comparisons in tokens, which all models of a run share."""
    judge: str

    def __call__(self, arm: str, model: RewardModel, people: int, ai: int) -> Measured:
        found: list[float | None] = [None] * len(self.material.gold)
        rows = (pair.row for group in self.held_out for pair in group.pairs)
        for row, margin in zip(rows, margins(model, self.held_out)[0], strict=True):
            found[row] = margin
        gold = ScoredPairs.of(self.material.gold, found)
        agreed = ScoredPairs.of(self.material.people, found)
        inside = [row.comparison.prompt.category == SLICE for row in gold.preferences]
        right = gold.right
        return Measured(
            judge=self.judge,
            arm=arm,
            people=people,
            ai=ai,
            gold=float(right.mean()),
            agreed=float(agreed.right.mean()),
            wrong_slice=float(right[inside].mean()),
            rest=float(right[[not there for there in inside]].mean()),
        )


def table(results: Sequence[Sequence[Measured]], kind: str) -> Iterator[str]:
    """Mean and 95 % interval over runs, per cent."""
    rows = [[row for row in run if row.arm.startswith(f"{kind}: ")] for run in results]
    yield f"| judge | {kind} | people's labels | judge's | units | gold | people | slice | rest |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for same in zip(*rows, strict=True):
        row = same[0]
        cells = [
            _cell([getattr(each, name) for each in same])
            for name in ("gold", "agreed", "wrong_slice", "rest")
        ]
        name = row.arm.partition(": ")[2]
        counts = f"{row.people:,} | {row.ai:,} | {row.units:,}"
        yield f"| {row.judge} | {name} | {counts} | {' | '.join(cells)} |"


def _cell(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{100 * values[0]:.1f}"
    found = student_interval(values)
    return f"{100 * found.mean:.1f} ± {50 * (found.high - found.low):.1f}"


if __name__ == "__main__":
    main()
