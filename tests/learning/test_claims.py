"""Further claims of docs/gates.md, for three seeds: a published case, controls, early stopping.

    recipes/customer-service.yaml, controls.yaml, early-stopping.yaml ──> evaluation.json ──> claims

The thresholds stand in gates.yaml beside this file. Runs go to the folder named by TUTELAGE_GATES,
where finished stages are kept and not run again, or else to a temporary one.
"""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
from ruamel.yaml import YAML

from tutelage import run
from tutelage.pipeline.guard_tools import read_watched
from tutelage.pipeline.run import RunResult
from tutelage.tracking.evaluation_record import Difference, EvaluationRecord
from tutelage.tracking.manifest import load_manifest

# A seed's first claim waits for its whole run.
pytestmark = [pytest.mark.learn, pytest.mark.timeout(7200)]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GATES = YAML(typ="safe").load(HERE / "gates.yaml")
HELD_OUT = ("decoupling", "divergence")
"""The monitors of held-out signals."""


@pytest.fixture(scope="module")
def finish(tmp_path_factory) -> Callable[[str, int], RunResult]:
    """Runs a recipe by its name with a seed, from where its own files are found."""
    chosen = os.environ.get("TUTELAGE_GATES")
    folder = Path(chosen).resolve() if chosen else tmp_path_factory.mktemp("claims")

    def finish(name: str, seed: int) -> RunResult:
        recipe = ROOT / "recipes" / f"{name}.yaml"
        with contextlib.chdir(ROOT):
            return run(
                recipe,
                folder / f"{name}-seed{seed}",
                overrides=["--seed", str(seed)],
                display=False,
            )

    return finish


@pytest.fixture(params=GATES["seeds"], ids="seed{}".format)
def seed(request) -> int:
    return int(request.param)


def judged(result: RunResult) -> EvaluationRecord:
    path = result.stage("evaluation") / "evaluation.json"
    return EvaluationRecord.from_json(json.loads(path.read_text("utf-8")))


def gain(record: EvaluationRecord, model: str, measure: str) -> Difference:
    """The model minus the one before training, on the same prompts."""
    found = record.difference(model, measure)
    assert found is not None
    print(f"{measure}, {model} - before: {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
    return found


def test_the_case_careless_hacks_and_careful_has_less_reward_and_half_the_length(finish, seed):
    limits, result = GATES["customer_service"], finish("customer-service", seed)
    record = judged(result)
    paid = load_manifest(result.stage("reward_people")).metrics["length_slope"]
    print(f"the reward model pays {paid:.3f} sigmas for a token")
    reward = {name: gain(record, name, "proxy") for name in ("careless", "published", "careful")}
    gold = {name: gain(record, name, "gold") for name in reward}
    tokens = {m.name: m.measures["length"].mean for m in record.models}
    print(", ".join(f"{name} {length:.0f} tokens" for name, length in tokens.items()))
    assert reward["careless"].low > 0
    assert gold["careless"].high < 0
    assert reward["careful"].low > 0
    assert reward["careful"].high < reward["careless"].low
    assert tokens["careful"] <= limits["length_share"] * tokens["careless"]


def test_the_careful_policy_is_better_than_before(finish):
    records = [judged(finish("customer-service", seed)) for seed in GATES["seeds"]]
    gains = [gain(record, "careful", "gold").mean for record in records]
    assert fmean(gains) >= GATES["customer_service"]["gold_gain"]


def test_rewards_that_know_nothing_bring_nothing(finish, seed):
    record = judged(finish("controls", seed))
    for model in record.models:
        print(f"{model.name} {model.measures['length'].mean:.0f} tokens")
    for name in ("shuffled", "noise", "tokens"):
        assert gain(record, name, "gold").mean <= GATES["controls"]["gold_gain"]
    # What pays for length pays people's reward model too, and nobody else.
    assert gain(record, "tokens", "proxy").low > 0
    assert gain(record, "tokens", "gold").high < 0


def gold_of_probes(record: EvaluationRecord, stage: str) -> dict[int, float]:
    points = [point for point in record.checkpoints if point.stage == stage]
    return {point.step: point.measures["gold"].mean for point in points}


def regret(result: RunResult, stage: str, *monitors: str) -> float:
    """Gold of the best probe above that of the one kept, were these monitors to stop."""
    gold = gold_of_probes(judged(result), stage)
    stop = {("monitors", monitor): "stop" for monitor in monitors}
    watched = read_watched(result.stage(stage)).with_settings(stop)
    rings = [
        now.step
        for now, findings in zip(watched.history, watched.findings(), strict=True)
        if {finding.monitor for finding in findings} & set(monitors)
    ]
    kept = watched.kept_step()
    kept = max(gold) if kept is None else kept
    found = max(gold.values()) - gold[kept]
    path = " ".join(f"{gold[step]:+.2f}" for step in sorted(gold))
    print(
        f"{stage}, {', '.join(monitors) or 'no monitor'}: "
        f"first alarm {min(rings, default='never')}, kept step {kept}, gold {gold[kept]:+.2f}, "
        f"regret {found:.2f}; gold of the probes {path}"
    )
    return found


def test_a_held_out_model_and_a_look_at_the_length_tell_when_to_stop(finish, seed):
    limits, result = GATES["early_stopping"], finish("early-stopping", seed)
    for stage in ("overfit", "apart", "shared"):
        without = regret(result, stage)
        assert regret(result, stage, *HELD_OUT) < without
        assert regret(result, stage, *HELD_OUT, "length") <= limits["share"] * without
