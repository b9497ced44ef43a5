"""Further claims of docs/gates.md, for three seeds: a published case, controls, early stopping.

    recipes/customer-service.yaml, controls.yaml, early-stopping.yaml ──> evaluation.json ──> claims

The thresholds stand in gates.yaml beside this file. Runs go to the folder named by TUTELAGE_GATES,
where finished stages are kept and not run again, or else to a temporary one.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tutelage import run
from tutelage.pipeline.guard_tools import read_watched
from tutelage.pipeline.run import RunResult
from tutelage.tracking.evaluation_record import Difference, EvaluationRecord

# A seed's first claim waits for its whole run.
pytestmark = [pytest.mark.learn, pytest.mark.timeout(7200)]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GATES = YAML(typ="safe").load(HERE / "gates.yaml")

Finish = Callable[[str], RunResult]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    chosen = os.environ.get("TUTELAGE_GATES")
    return Path(chosen).resolve() if chosen else tmp_path_factory.mktemp("claims")


@pytest.fixture(params=GATES["seeds"], ids="seed{}".format)
def finish(request, folder, monkeypatch) -> Finish:
    """Runs a recipe by its name with the seed, from where its own files are found."""
    monkeypatch.chdir(ROOT)

    def finish(name: str) -> RunResult:
        recipe = ROOT / "recipes" / f"{name}.yaml"
        overrides = ["--seed", str(request.param)]
        return run(recipe, folder / f"{name}-seed{request.param}", overrides=overrides)

    return finish


def judged(result: RunResult) -> EvaluationRecord:
    path = result.stage("evaluation") / "evaluation.json"
    return EvaluationRecord.from_json(json.loads(path.read_text("utf-8")))


def gain(record: EvaluationRecord, model: str, measure: str) -> Difference:
    """The model minus the one before training, on the same prompts."""
    found = record.difference(model, measure)
    assert found is not None
    print(f"{measure}, {model} - before: {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
    return found


def test_the_case_careless_hacks_and_careful_is_better_for_less_reward(finish):
    limits, record = GATES["customer_service"], judged(finish("customer-service"))
    reward = {name: gain(record, name, "proxy") for name in ("careless", "published", "careful")}
    gold = {name: gain(record, name, "gold") for name in reward}
    tokens = {m.name: m.measures["length"].mean for m in record.models}
    print(", ".join(f"{name} {length:.0f} tokens" for name, length in tokens.items()))
    assert reward["careless"].low > 0
    assert gold["careless"].high < 0
    assert reward["careful"].low > 0
    assert reward["careful"].high < reward["careless"].low
    assert gold["careful"].mean >= limits["gold_gain"]
    assert tokens["careful"] <= limits["length_share"] * tokens["careless"]


def test_rewards_that_know_nothing_bring_nothing(finish):
    record = judged(finish("controls"))
    for name in ("shuffled", "noise", "tokens"):
        assert gain(record, name, "gold").mean <= GATES["controls"]["gold_gain"]
    # What pays for length pays people's reward model too, and nobody else.
    assert gain(record, "tokens", "proxy").low > 0
    assert gain(record, "tokens", "gold").high < 0


def gold_of_probes(record: EvaluationRecord, stage: str) -> dict[int, float]:
    points = [point for point in record.checkpoints if point.stage == stage]
    return {point.step: point.measures["gold"].mean for point in points}


def regret(result: RunResult, stage: str) -> float:
    """Gold of the best probe above that of the one which the guard keeps, told to stop."""
    gold = gold_of_probes(judged(result), stage)
    stop = {("monitors", monitor): "stop" for monitor in ("decoupling", "divergence")}
    kept = read_watched(result.stage(stage)).with_settings(stop).kept_step()
    kept = max(gold) if kept is None else kept
    path = " ".join(f"{value:+.2f}" for _, value in sorted(gold.items()))
    found = max(gold.values()) - gold[kept]
    print(f"{stage}: kept step {kept}, regret {found:.3f}; gold of all probes {path}")
    return found


def test_a_held_out_reward_model_says_when_to_stop_unless_it_is_wrong_alike(finish):
    result = finish("early-stopping")
    seen, unseen = regret(result, "overfit"), regret(result, "shared")
    assert seen <= GATES["early_stopping"]["regret"]
    assert unseen > GATES["early_stopping"]["regret"]
