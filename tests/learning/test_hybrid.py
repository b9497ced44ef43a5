"""What docs/hybrid.md says of feedback from people and a judge, for three seeds.

    recipes/hybrid.yaml ──seed 0, 1, 2──> samples ──scripts/hybrid.py──> accuracies ──> gates

The thresholds stand in gates.yaml beside this file. Runs go to the folder named by TUTELAGE_GATES,
where finished stages and results are kept and not made again, or else to a temporary one.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest
from hybrid import Measured, measure
from ruamel.yaml import YAML

from tutelage import run

# The first gate waits for all runs.
pytestmark = [pytest.mark.learn, pytest.mark.timeout(7200)]

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parents[1] / "recipes" / "hybrid.yaml"
GATES = YAML(typ="safe").load(HERE / "gates.yaml")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[list[Measured]]:
    chosen = os.environ.get("TUTELAGE_GATES")
    runs = Path(chosen) if chosen else tmp_path_factory.mktemp("hybrid")
    found = []
    for seed in GATES["seeds"]:
        folder = runs / f"hybrid-seed{seed}"
        overrides = ["--seed", str(seed)]
        run(RECIPE, folder, overrides=overrides, only=["samples"], display=False)
        found.append(measure(folder, folder / "measured.json"))
    return found


def mean(
    results: Sequence[Sequence[Measured]],
    judge: str,
    arm: str,
    measure: str,
    people: int | None = None,
) -> float:
    """The mean over runs of one cell of the tables."""
    rows = [
        row
        for run in results
        for row in run
        if (row.judge, row.arm) == (judge, arm) and people in (None, row.people)
    ]
    assert len(rows) == len(results), f"{judge} {arm}: {len(rows)} rows of {len(results)} runs"
    return fmean(getattr(row, measure) for row in rows)


def test_gate_5_a_judge_that_is_right_is_hard_to_beat(results):
    """At equal cost its labels are worth more than people's noisy ones, on gold."""
    judge = mean(results, "right", "arm: judge alone", "gold")
    people = mean(results, "right", "arm: people alone", "gold")
    print(f"judge {judge:.3f}, people {people:.3f}")
    assert judge >= people + GATES["hybrid"]["judge_lead"]


def test_gate_6_naming_the_category_on_which_the_judge_is_wrong_pays(results):
    """More of its labels do not mend it; people deciding that category do, for the same units."""
    alone = mean(results, "wrong", "arm: judge alone", "wrong_slice")
    routed = mean(results, "wrong", "arm: routed by category", "wrong_slice")
    print(f"on the slice: judge alone {alone:.3f}, routed by category {routed:.3f}")
    assert alone <= GATES["hybrid"]["wrong_on_slice"]
    assert routed >= alone + GATES["hybrid"]["category_on_slice"]
    assert mean(results, "wrong", "arm: routed by category", "gold") > mean(
        results, "wrong", "arm: judge alone", "gold"
    )


def test_gate_7_half_of_the_labels_chosen_by_category_beat_all_of_them_at_random(results):
    """On the slice, where the judge is wrong: the category was named by someone who knew."""
    half, all_ = (
        mean(results, "wrong", f"curve: {name}", "wrong_slice", people)
        for name, people in (("category", 200), ("random", 400))
    )
    print(f"on the slice: category at 200 labels {half:.3f}, random at 400 {all_:.3f}")
    assert half >= all_ + GATES["hybrid"]["half_by_category"]
