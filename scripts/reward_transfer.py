"""What reward models of one training file are worth: on held-out prompts of it, and on other files.

    python scripts/reward_transfer.py training.jsonl.gz runs/reward-models/stages/pretrained \\
        runs/reward-models/stages/scratch --test a.jsonl.gz b.jsonl.gz --limit 800

One row per reward stage, then the baselines on the pairs that the first stage's model could score.
Accuracy in per cent with 95 % intervals over prompts. Cross-validated, where the stage has `folds`,
is that of the training pairs, each judged by a model that has not seen it. Prints Markdown.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.pipeline.reward_tools import evaluate_reward, load_pairs, load_reward

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of all stages, and of the baselines, on all files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("training", type=Path)
    parser.add_argument("stages", nargs="+", type=Path)
    parser.add_argument("--test", nargs="*", type=Path, default=[])
    parser.add_argument("--limit", type=int, help="use the first pairs of each test file alone")
    asked = parser.parse_args(arguments)
    learned = load_pairs([asked.training])
    files = {path: load_pairs([path], asked.limit) for path in asked.test}
    names = [path.name.partition(".")[0] for path in files]
    heads = ["by", "held out", "cross-validated", *names]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    first: list[Any] = []
    for stage in asked.stages:
        record = json.loads((stage / "reward.json").read_text("utf-8"))
        model = load_reward(str(stage / "model"))
        measured = [record["held_out"], record.get("folds", {}).get("out_of_fold")]
        measured += [evaluate_reward(model, pairs, learned)["held_out"] for pairs in files.values()]
        print(_row(stage.name, measured), flush=True)
        first = first or measured
    for name in first[0]["baselines"]:
        print(_row(name, [each and each["baselines"][name] for each in first]))


def _row(name: str, measured: Sequence[Any]) -> str:
    cells = ["" if each is None else _cell(each["accuracy"]) for each in measured]
    return f"| {name} | {' | '.join(cells)} |"


def _cell(accuracy: Mapping[str, float]) -> str:
    """Accuracy with its interval in per cent, and of how many pairs."""
    low, mean, high = (100 * accuracy[name] for name in ("low", "mean", "high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}] of {accuracy['n']:.0f}"


if __name__ == "__main__":
    main()
