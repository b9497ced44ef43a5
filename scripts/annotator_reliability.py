"""What weighing annotators by their reliability is worth, on people of whom some toss coins.

    finished run (samples, sft) ──> comparisons, each judged by 3 of 8 simulated people
                                └──> reward model per way of weighing ──> accuracy against gold

    python scripts/annotator_reliability.py RUN --output runs/annotators --random 3 --seeds 0 1 2

RUN is a finished run of recipes/gates.yaml. People who toss coins stand at the end of the pool.
Gold is asked about pairs whose prompts nobody judged, and about the judged ones to see how often
votes are right; nothing is trained on it.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tutelage.data.loaders import Samples, load_samples
from tutelage.evaluation.helpdesk import HelpdeskRater
from tutelage.evaluation.rater import Answer
from tutelage.feedback import PreferenceStore, pairs
from tutelage.feedback.reliability import annotators
from tutelage.pipeline.api import reward
from tutelage.pipeline.reward_tools import load_reward
from tutelage.records import Comparison, Preference
from tutelage.trainers.reward import preference_margins
from tutelage.worlds.helpdesk import People, WorldSpec

WAYS = ("none", "agreement", "dawid-skene")
EACH = 3
"""People who judge a comparison."""


def compared(samples: Sequence[Samples], seed: int) -> list[Comparison]:
    """One pair of answers per prompt, where two of them differ."""
    return [
        comparison
        for row in samples
        for comparison in pairs(row.prompt, row.completions, count=1, seed=seed).comparisons
    ]


def judge(
    comparisons: Sequence[Comparison], coins: int, seed: int, each: int = EACH
) -> list[Preference]:
    """Hard labels; the last `coins` of the pool decide by a toss."""
    people = People(WorldSpec.nano(), seed).persons
    drawn = random.Random(f"reliability {seed}")
    tossing = {person.name for person in people[len(people) - coins :]}
    judged = []
    for comparison in comparisons:
        for person in drawn.sample(people, each):
            p_a = 0.5 if person.name in tossing else person.p_prefers_a(comparison)
            judged.append(Preference(comparison, float(drawn.random() < p_a), person.name))
    return judged


def gold_gaps(comparisons: Sequence[Comparison]) -> list[float]:
    """Gold score of a minus that of b."""
    prompts = [comparison.prompt for comparison in comparisons]
    sides = []
    for texts in ([c.a for c in comparisons], [c.b for c in comparisons]):
        ratings = HelpdeskRater().rate(prompts, [Answer(text, True) for text in texts])
        sides.append(ratings["gold"])
    return [float(a or 0.0) - float(b or 0.0) for a, b in zip(*sides, strict=True)]


def votes_right(judged: Sequence[Preference], way: str) -> float:
    """Share of comparisons whose weighted vote has gold's sign; a draw is half right."""
    comparisons = list({row.comparison.id: row.comparison for row in judged}.values())
    gaps = dict(zip((c.id for c in comparisons), gold_gaps(comparisons), strict=True))
    found = {} if way == "none" else annotators(judged, "agreement" if way == WAYS[1] else way)
    votes: dict[str, float] = dict.fromkeys(gaps, 0.0)
    for row in judged:
        weight = found[row.annotator].weight if found else 1.0
        votes[row.comparison.id] += weight * (2 * row.p_a - 1)
    right = [
        0.5 if abs(vote) < 1e-9 else float(vote * gaps[name] > 0)
        for name, vote in votes.items()
        if gaps[name]
    ]
    return fmean(right)


def accuracy(model: Path, comparisons: Sequence[Comparison]) -> float:
    """Share of pairs on which a reward model has gold's sign."""
    scorer = load_reward(str(model), None)
    margins = preference_margins(scorer, [Preference(c, 0.5, "nobody") for c in comparisons])
    decided = [
        margin * gap > 0
        for margin, gap in zip(margins, gold_gaps(comparisons), strict=True)
        if gap and margin is not None
    ]
    return fmean(decided)


def measure(arguments: argparse.Namespace, coins: int, seed: int) -> dict[str, Any]:
    """One pool of people: votes, and a reward model for each way of weighing them."""
    stages = arguments.run / "stages"
    samples = iter(load_samples(stages / "samples" / "samples.jsonl"))
    judged = judge(compared(list(islice(samples, arguments.prompts)), seed), coins, seed)
    test = compared(list(islice(samples, arguments.test)), seed)
    folder = arguments.output / f"random{coins}" / f"seed{seed}"
    with PreferenceStore(folder / "labels.db") as store:
        store.add(judged)
    result: dict[str, Any] = {"random": coins, "seed": seed}
    for way in WAYS:
        result[way] = {"votes": votes_right(judged, way)}
        if not arguments.votes_only:
            trained = reward(
                folder / way,
                display=False,
                model=str(stages / "sft"),
                phases=[
                    {
                        "preferences": [str(folder / "labels.db")],
                        "epochs": 2.0,
                        "optimizer": {"learning_rate": 1e-3},
                    }
                ],
                batch={"minibatch": 64, "microbatch_tokens": 1024},
                max_length=256,
                reliability=way,
                seed=seed,
            )
            result[way]["model"] = accuracy(trained, test)
    found = annotators(judged, "dawid-skene")
    result["annotators"] = {name: [row.accuracy, row.weight] for name, row in found.items()}
    return result


def main() -> None:
    """Measures each pool and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--random", type=int, nargs="+", default=[0, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=1500)
    parser.add_argument("--test", type=int, default=1500)
    parser.add_argument("--votes-only", action="store_true")
    arguments = parser.parse_args()
    for coins in arguments.random:
        rows = []
        for seed in arguments.seeds:
            rows.append(measure(arguments, coins, seed))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        for way in WAYS:
            for what in rows[0][way]:
                values = [row[way][what] for row in rows]
                spread = stdev(values) if len(values) > 1 else 0.0
                print(f"{coins} random, {way}, {what}: {fmean(values):.3f} (sd {spread:.3f})")


if __name__ == "__main__":
    main()
