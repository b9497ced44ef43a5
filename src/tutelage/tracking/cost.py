"""What each model of an evaluation took to make: response tokens and time, read from manifests.

    baseline ──> samples ──> labels ──> dpo ──> model      counted: what lies between the two
                 reward model ──> train ──> model          the reward model is left out

What leads to a reward model serves every learner alike, and is left out of what one of them took.
A stage counts once, whatever number of ways lead to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tutelage.tracking.evaluation_record import Estimate, EvaluationRecord, Measure, Model
from tutelage.tracking.manifest import Manifest

__all__ = ["RESPONSE_TOKENS", "with_costs"]

RESPONSE_TOKENS = "response_tokens"
"""The measure, and the key under which a stage reports what it drew itself."""
_SECONDS = "seconds"

_DRAWING = ("sample", "train")
"""Kinds of stages that draw from a policy."""

_MEASURES = (
    Measure(
        RESPONSE_TOKENS,
        "Tokens drawn",
        "",
        None,
        "Response tokens drawn from a policy between the baseline and the model, those for reward "
        "models left out.",
        "cost",
    ),
    Measure(
        _SECONDS,
        "Time",
        "s",
        None,
        "Wall time of the stages between the baseline and the model, without reward models; stages "
        "that ran side by side shared the cores.",
        "cost",
    ),
)


def with_costs(record: EvaluationRecord, stages: Sequence[Manifest]) -> EvaluationRecord:
    """The record with what each model took to make, as far as the stages tell it.

    Args:
        record: of the evaluation.
        stages: the finished stages of its run.
    """
    known = {stage.stage: stage for stage in stages}
    start = _ancestry(record.baseline.stage, known)
    models = tuple(_costed(model, known, start) for model in record.models)
    told = {key for model in models[1:] for key in model.measures}
    measures = [measure for measure in _MEASURES if measure.key in told]
    return replace(record, models=models, measures=(*record.measures, *measures))


def _costed(model: Model, known: Mapping[str, Manifest], start: Mapping[str, Manifest]) -> Model:
    if model.stage not in known:
        return model
    way = _ancestry(model.stage, known, without=start).values()
    found = {_SECONDS: sum(stage.seconds for stage in way)}
    drawn = [stage.metrics.get(RESPONSE_TOKENS) for stage in way if stage.kind in _DRAWING]
    if None not in drawn:
        found[RESPONSE_TOKENS] = sum(tokens for tokens in drawn if tokens is not None)
    exact = {key: Estimate(value, value, value) for key, value in found.items()}
    return replace(model, measures={**model.measures, **exact})


def _ancestry(
    stage: str, known: Mapping[str, Manifest], without: Mapping[str, Manifest] | None = None
) -> dict[str, Manifest]:
    """The stage and all that it read of the run, reward models and what they read left out."""
    found: dict[str, Manifest] = {}
    to_visit = [stage]
    while to_visit:
        name = to_visit.pop()
        manifest = known.get(name)
        if manifest is None or name in found or name in (without or {}):
            continue
        if manifest.kind != "reward":
            found[name] = manifest
            to_visit += [reference.partition("/")[0] for reference in manifest.inputs]
    return found
