"""What a model took: every stage between baseline and model once, reward models left out."""

import pytest

from tutelage.tracking.cost import with_costs
from tutelage.tracking.evaluation_record import EvaluationRecord
from tutelage.tracking.manifest import Manifest

TOKENS, SECONDS = "response_tokens", "seconds"


def stage(name: str, kind: str, seconds: float, *inputs: str, tokens: float | None = None):
    metrics = {} if tokens is None else {TOKENS: tokens}
    return Manifest(
        kind, name, {}, "", dict.fromkeys(inputs, ""), {}, 0, "", "", seconds, metrics, {}
    )


RUN = [
    stage("world", "helpdesk", 1),
    stage("base", "pretrain", 2, "world/documents.jsonl"),
    stage("sft", "sft", 4, "base", "world/sft.jsonl"),
    stage("samples", "sample", 8, "sft", "world/train.jsonl", tokens=1000),
    stage("labels", "label", 16, "samples"),
    stage("rm", "reward", 32, "sft", "labels", "samples"),
    stage("ppo", "train", 64, "sft", "rm", "world/rl.jsonl", tokens=300),
    stage("longer", "train", 128, "ppo", "rm", tokens=50),
    stage("dpo", "dpo", 256, "sft", "labels"),
    stage("drafts", "sample", 512, "sft", tokens=70),
    stage("winners", "select", 1024, "drafts", "rm"),
    stage("distilled", "sft", 2048, "sft", "winners"),
    # Two ways lead to its samples.
    stage("twice", "sft", 4096, "winners", "drafts"),
]


def record(**stages: str) -> EvaluationRecord:
    models = [{"name": name, "stage": made, "measures": {}} for name, made in stages.items()]
    return EvaluationRecord.from_json({"models": models, "measures": []})


@pytest.mark.parametrize(
    ("made", "tokens", "seconds"),
    [
        ("ppo", 300, 64),
        ("longer", 350, 192),
        ("dpo", 1000, 256 + 16 + 8),
        ("distilled", 70, 2048 + 1024 + 512),
        ("twice", 70, 4096 + 1024 + 512),
        ("sft", 0, 0),
        # Begins before the baseline: nothing lies between the two.
        ("base", 0, 0),
    ],
)
def test_a_model_takes_what_lies_between_it_and_the_baseline(made, tokens, seconds):
    baseline, model = with_costs(record(before="sft", after=made), RUN).models
    assert (model.measures[TOKENS].mean, model.measures[SECONDS].mean) == (tokens, seconds)
    assert (baseline.measures[TOKENS].mean, baseline.measures[SECONDS].mean) == (0, 0)


def test_costs_are_measures_of_the_record_without_good_or_bad():
    found = with_costs(record(before="sft", after="ppo"), RUN)
    assert [(it.key, it.role, it.better) for it in found.measures] == [
        (TOKENS, "cost", None),
        (SECONDS, "cost", None),
    ]
    assert [found.decimals(measure) for measure in found.measures] == [0, 0]


def test_tokens_that_a_stage_does_not_tell_are_not_made_up():
    silent = [*RUN, stage("old", "train", 5, "ppo")]
    model = with_costs(record(before="sft", after="old"), silent).models[1]
    assert model.measures[SECONDS].mean == 69
    assert TOKENS not in model.measures


def test_a_model_from_elsewhere_costs_nothing_that_is_known():
    found = with_costs(record(before="org/a", after="org/b"), RUN)
    assert found == record(before="org/a", after="org/b")
