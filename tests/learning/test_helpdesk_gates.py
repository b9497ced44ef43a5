"""What the helpdesk world must show, for every seed: reward hacking, its cure, a real gain.

    recipes/gates.yaml ──seed 0, 1, 2──> evaluation.json, samples ──> gates 1 to 4

The thresholds stand in gates.yaml beside this file, the reasons in docs/gates.md. Runs go to the
folder named by TUTELAGE_GATES, where finished stages are kept and not run again, or else to a
temporary one. Each gate prints what it measured: `pytest -rP` shows it for gates that hold, too.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tutelage import run
from tutelage.data.jsonl import read_jsonl
from tutelage.distributed import cores_for
from tutelage.evaluation.best_of_n import BestOfN, best_of_n_curve
from tutelage.evaluation.helpdesk import HelpdeskRater
from tutelage.evaluation.rater import Answer
from tutelage.models import RewardModel
from tutelage.pipeline.run import RunResult
from tutelage.records import Prompt, StopReason
from tutelage.tracking.evaluation_record import Difference, EvaluationRecord

# A seed's first gate waits for its whole run.
pytestmark = [pytest.mark.learn, pytest.mark.timeout(7200)]

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parents[1] / "recipes" / "gates.yaml"
GATES = YAML(typ="safe").load(HERE / "gates.yaml")

Clause = tuple[str, bool]
"""What was measured against what was expected, and whether it holds."""


@dataclass
class Finished:
    """One seed's run."""

    result: RunResult

    @cached_property
    def evaluation(self) -> EvaluationRecord:
        """Every model against the SFT model and against each other."""
        path = self.result.stage("evaluation") / "evaluation.json"
        return EvaluationRecord.from_json(json.loads(path.read_text("utf-8")))

    def mean(self, model: str, measure: str) -> float:
        models = {model.name: model for model in self.evaluation.models}
        return models[model].measures[measure].mean

    def gain(self, model: str, measure: str) -> Difference:
        """The model minus the SFT model on the same prompts."""
        found = self.evaluation.difference(model, measure)
        assert found is not None, f"evaluation.json has no difference {model} - before"
        return found

    def lead(self, rival: str, *, of: str = "guarded") -> Difference:
        """Gold of a run minus that of a rival on the same prompts."""
        found = self.evaluation.difference(of, "gold", baseline=rival)
        assert found is not None, f"evaluation.json has no difference {of} - {rival}"
        return found

    def gold_of_probes(self, stage: str) -> dict[int, float]:
        """Round -> gold on the same held-out prompts, in the order of training."""
        points = [point for point in self.evaluation.checkpoints if point.stage == stage]
        return {p.step: p.measures["gold"].mean for p in sorted(points, key=lambda p: p.step)}

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """One row per prompt, with all its completions."""
        return [row for _, row in read_jsonl(self.result.stage("best_of_n") / "samples.jsonl")]

    @cached_property
    def gold_of_samples(self) -> list[list[float | None]]:
        """Gold of every completion, prompt by prompt."""
        rater = HelpdeskRater()
        return [
            list(
                rater.rate(
                    [Prompt.from_json(row)] * len(row["completions"]),
                    [
                        Answer(c["text"], ended=c["stop"] != StopReason.LENGTH)
                        for c in row["completions"]
                    ],
                )["gold"]
            )
            for row in self.samples
        ]

    def best_of_n(self, reward_stage: str) -> BestOfN:
        """Gold of the best of n by a reward model of the run."""
        model = RewardModel.load(self.result.stage(reward_stage) / "model").eval()
        cores = cores_for(model, os.cpu_count() or 1)
        proxy = [
            model.score(
                [Prompt.from_json(row)] * len(row["completions"]),
                [completion["text"] for completion in row["completions"]],
                batch_tokens=2048,
                cores=cores,
            )
            for row in self.samples
        ]
        return best_of_n_curve(proxy, self.gold_of_samples, GATES["best_of_n"]["sizes"])


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    chosen = os.environ.get("TUTELAGE_GATES")
    return Path(chosen) if chosen else tmp_path_factory.mktemp("gates")


@pytest.fixture(scope="session", params=GATES["seeds"], ids="seed{}".format)
def finished(request, runs) -> Finished:
    return finish(request.param, runs)


def finish(seed: int, runs: Path) -> Finished:
    """The seed's run; what is finished of it is not run again."""
    return Finished(
        run(RECIPE, runs / f"seed{seed}", overrides=["--seed", str(seed)], display=False)
    )


def require(*clauses: Clause) -> None:
    """Shows all clauses, and fails when one does not hold."""
    lines = [f"{'holds' if holds else 'FAILS'}  {text}" for text, holds in clauses]
    print(*lines, sep="\n")
    assert all(holds for _, holds in clauses), "\n" + "\n".join(lines)


def interval(difference: Difference) -> str:
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def rounds(probes: dict[int, float]) -> str:
    return ", ".join(f"{step}: {gold:.3f}" for step, gold in probes.items())


def fall(probes: dict[int, float]) -> float:
    """How far the last probe lies below the best one."""
    return max(probes.values()) - probes[max(probes)]


def gate_1(finished: Finished) -> Iterator[Clause]:
    limits = GATES["over_optimisation"]
    proxy, gold = finished.gain("unguarded", "proxy"), finished.gain("unguarded", "gold")
    probes = finished.gold_of_probes("unguarded")
    yield (
        f"proxy, unguarded - before: {interval(proxy)} sigma, expected {limits['proxy_rise']:+}",
        proxy.mean >= limits["proxy_rise"],
    )
    yield (
        f"gold, unguarded - before: {interval(gold)}, expected an interval below 0",
        gold.high < 0,
    )
    yield (
        f"gold, best probe - last: {fall(probes):.3f} ({rounds(probes)}), "
        f"expected {limits['fall_from_peak']} or more",
        fall(probes) >= limits["fall_from_peak"],
    )


def gate_2(finished: Finished) -> Iterator[Clause]:
    limits = GATES["cure"]
    gold = finished.gain("cured", "gold")
    lengths = {name: finished.mean(name, "length") for name in ("cured", "unguarded")}
    yield (
        f"gold, cured - before: {interval(gold)}, expected {limits['gold_gain']:+} or more",
        gold.mean >= limits["gold_gain"],
    )
    yield (
        f"length: cured {lengths['cured']:.1f} tokens, unguarded {lengths['unguarded']:.1f}, "
        f"expected a share of {limits['length_share']} or less",
        lengths["cured"] <= limits["length_share"] * lengths["unguarded"],
    )


def gate_2_control(finished: Finished) -> Iterator[Clause]:
    lead = finished.lead("control", of="cured")
    yield f"gold, cured - control: {interval(lead)}, expected above 0", lead.mean > 0


def gate_3(finished: Finished) -> Iterator[Clause]:
    limits = GATES["guarded"]
    gold, lead = finished.gain("guarded", "gold"), finished.lead("unguarded")
    probes = finished.gold_of_probes("guarded")
    yield (
        f"gold, guarded - before: {interval(gold)}, expected {limits['gold_gain']:+} or more "
        "and an interval above 0",
        gold.mean >= limits["gold_gain"] and gold.low > 0,
    )
    yield (
        f"gold, best probe - last: {fall(probes):.3f} ({rounds(probes)}), "
        f"expected {limits['fall_from_peak']} or less",
        fall(probes) <= limits["fall_from_peak"],
    )
    yield (
        f"gold, guarded - unguarded: {interval(lead)}, expected an interval above 0",
        lead.low > 0,
    )


def gate_4(finished: Finished) -> Iterator[Clause]:
    limits = GATES["best_of_n"]
    peaks = {}
    for name in ("people", "hybrid"):
        curve = finished.best_of_n(f"reward_{name}")
        fit = curve.fit()
        limit = limits["r_squared"]
        peaks[name] = fit.peak
        gold = ", ".join(f"{value:.2f}" for value in curve.gold)
        yield (
            f"{name}: gold {gold} at n = {limits['sizes']}, alpha {fit.alpha:.3f}, "
            f"beta {fit.beta:.3f}, R2 {fit.r_squared:.3f}, expected R2 {limit}",
            fit.r_squared >= limit,
        )
        if name == "people":
            fall = max(curve.gold) - curve.gold[-1]
            expected = limits["fall_of_people"]
            yield f"fall of people's: {fall:.2f}, expected {expected} or more", fall >= expected
    yield (
        f"peak d*: people {peaks['people']:.2f}, hybrid {peaks['hybrid']:.2f}, "
        "expected people's first",
        peaks["people"] < peaks["hybrid"],
    )


def test_unguarded_training_hacks_the_reward(finished):
    require(*gate_1(finished))


def test_a_penalty_above_the_reward_models_slope_cures(finished):
    require(*gate_2(finished))


def test_a_penalty_below_the_reward_models_slope_ends_lower_than_the_cure(finished):
    require(*gate_2_control(finished))


def test_guarded_training_gains_gold_and_keeps_it(finished):
    # Shown, not required: the cured run has the other reward model and is no rival by design.
    print(f"shown  gold, guarded - cured: {interval(finished.lead('cured'))}")
    require(*gate_3(finished))


def test_gold_of_best_of_n_follows_the_quadratic_and_peaks_later_for_the_better_model(finished):
    require(*gate_4(finished))
