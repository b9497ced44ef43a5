"""What length and a bag of words know about files of preferences: the least a reward model must do.

    python scripts/reward_baselines.py pairs-a.jsonl.gz pairs-b.jsonl.gz --test test.jsonl.gz

One row per file to learn from, one column per file to be measured on. A file is measured on itself
by cross-validation over prompts. Prints Markdown.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tutelage.evaluation.intervals import clustered_mean
from tutelage.evaluation.reward_baselines import BASELINES, cross_validated
from tutelage.evaluation.scored_pairs import ScoredPairs
from tutelage.pipeline.reward_tools import load_pairs
from tutelage.records import Preference

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of all files against all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("training", nargs="+", type=Path)
    parser.add_argument("--test", nargs="*", type=Path, default=[])
    asked = parser.parse_args(arguments)
    files = {path: load_pairs([path]) for path in [*asked.training, *asked.test]}
    print("| learned from | baseline | " + " | ".join(_name(path) for path in files) + " |")
    print("|---|---|" + "---|" * len(files))
    for source in asked.training:
        for name in BASELINES:
            cells = [_cell(name, files[source], rows) for rows in files.values()]
            print(f"| {_name(source)} | {name} | {' | '.join(cells)} |", flush=True)


def _name(path: Path) -> str:
    return path.name.partition(".")[0]


def _cell(name: str, training: Sequence[Preference], test: Sequence[Preference]) -> str:
    """Accuracy with its interval in per cent."""
    fit = BASELINES[name]
    margins = cross_validated(fit, test) if training is test else fit(training, test)
    pairs = ScoredPairs.of(test, margins.tolist())
    found = clustered_mean(pairs.right, pairs.prompts)
    return f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


if __name__ == "__main__":
    main()
