"""Do several reward models keep PPO from gaming them? Tabulates runs of recipes/ensembles.yaml.

    runs/ensembles/seed0 ... seed4 ──> gold at equal KL and at the end, per way of being rewarded

    tutelage run recipes/ensembles.yaml --seed 0 --output runs/ensembles/seed0
    python scripts/ensembles.py runs/ensembles/seed*

Gold between two probes is interpolated in sqrt(KL), in which over-optimisation curves are smooth
(Gao et al. 2022, arXiv:2210.10760). Intervals are Student's, over seeds; differences to `single`
are paired by seed, which gives all ways the same world, models, people and prompts.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.tracking.comparison import student_interval

_SINGLE = "single"
_AT = (2.0, 5.0, 10.0)
"""Nats of KL per answer at which gold is compared."""

Column = NDArray[np.float64]


def curves(run: Path) -> dict[str, tuple[Column, Column]]:
    """sqrt(KL) and gold at each probe, by stage."""
    record = json.loads((run / "stages" / "evaluation" / "evaluation.json").read_text())
    found: dict[str, list[tuple[float, float]]] = {}
    for probe in record["checkpoints"]:
        kl, gold = (probe["measures"][name]["mean"] for name in ("kl", "gold"))
        found.setdefault(probe["stage"], []).append((math.sqrt(max(0.0, kl)), gold))
    return {
        stage: (np.array([d for d, _ in points]), np.array([gold for _, gold in points]))
        for stage, points in found.items()
    }


def gold_at(curve: tuple[Column, Column], kl: float) -> float:
    """Gold where the policy first has that KL; NaN where it never goes so far."""
    distance, gold = curve
    beyond = np.flatnonzero(distance >= math.sqrt(kl))
    if not len(beyond):
        return math.nan
    first = int(beyond[0])
    around = slice(max(0, first - 1), first + 1)
    return float(np.interp(math.sqrt(kl), distance[around], gold[around]))


def figures(runs: Sequence[Path]) -> dict[str, dict[str, Column]]:
    """By stage and column, a number for each run; NaN of a run that has no such stage."""
    read = [curves(run) for run in runs]
    columns: dict[str, Any] = {
        **{f"gold at KL {kl:g}": lambda curve, kl=kl: gold_at(curve, kl) for kl in _AT},
        "best": lambda curve: float(curve[1].max()),
        "end": lambda curve: float(curve[1][-1]),
        "KL at the end": lambda curve: float(curve[0][-1] ** 2),
    }
    return {
        stage: {
            name: np.array([column(each[stage]) if stage in each else math.nan for each in read])
            for name, column in columns.items()
        }
        for stage in dict.fromkeys(stage for each in read for stage in each)
    }


def interval(values: Column) -> str:
    """Mean and 95 % interval of the seeds that have a value."""
    known = values[np.isfinite(values)].tolist()
    if not known:
        return "-"
    found = student_interval(known)
    half = f" ± {found.high - found.mean:.2f}" * (len(known) > 1)
    fewer = f" (of {len(known)})" * (len(known) < len(values))
    return f"{found.mean:+.2f}{half}{fewer}"


def main(arguments: Sequence[str]) -> None:
    """Prints two tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    found = figures(parser.parse_args(arguments).runs)
    heads = list(found[_SINGLE])
    for title, base in (("gold", None), (f"difference to {_SINGLE}", found[_SINGLE])):
        print(f"| {title} | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
        for stage, columns in found.items():
            if base is None or stage != _SINGLE:
                cells = [interval(columns[h] - (0.0 if base is None else base[h])) for h in heads]
                print(f"| {stage} | {' | '.join(cells)} |")
        print()


if __name__ == "__main__":
    main(sys.argv[1:])
