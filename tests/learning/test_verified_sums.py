"""What docs/verifiers.md says of a model that learns sums from verdicts alone, for three seeds.

    recipes/rlvr-arithmetic.yaml ──seed 0, 1, 2──> evaluation.json ──> the gate

The threshold stands in gates.yaml beside this file. Runs go to the folder named by TUTELAGE_GATES,
where finished stages are kept and not run again, or else to a temporary one.
"""

import json
import os
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tutelage import run
from tutelage.tracking.evaluation_record import EvaluationRecord

# The first case of a seed waits for its whole run.
pytestmark = [pytest.mark.learn, pytest.mark.timeout(3600)]

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parents[1] / "recipes" / "rlvr-arithmetic.yaml"
GATES = YAML(typ="safe").load(HERE / "gates.yaml")


@pytest.fixture(scope="module", params=GATES["seeds"])
def evaluation(request, tmp_path_factory) -> EvaluationRecord:
    chosen = os.environ.get("TUTELAGE_GATES")
    runs = Path(chosen) if chosen else tmp_path_factory.mktemp("sums")
    overrides = ["--seed", str(request.param)]
    done = run(RECIPE, runs / f"sums-seed{request.param}", overrides=overrides, display=False)
    path = done.stage("evaluation") / "evaluation.json"
    return EvaluationRecord.from_json(json.loads(path.read_text("utf-8")))


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_more_sums_are_right_that_no_stage_has_seen(evaluation, algorithm):
    gain = evaluation.difference(algorithm, "accuracy")
    assert gain is not None
    print(f"{algorithm}: {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    assert gain.mean >= GATES["verified_sums"][algorithm]
    assert gain.low > 0
