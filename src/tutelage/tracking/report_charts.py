"""Which charts a run gets: panels of one title, one sentence and one drawing each."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from markupsafe import Markup

from tutelage.tracking import plots
from tutelage.tracking.evaluation_record import Checkpoint, Estimate, EvaluationRecord, Measure
from tutelage.tracking.plots import Point, Series
from tutelage.tracking.reader import RunRecord, StageRecord

__all__ = [
    "Colours",
    "Legend",
    "Panel",
    "constant_metrics",
    "curve_panels",
    "frontier_panels",
    "histogram_panels",
    "reward_panels",
    "training_panels",
]

_CURVES = {
    "reward/score": ("Proxy reward", "What training raises. Rising alone proves nothing."),
    "kl/sequence": ("KL from the reference", "Nats per answer: how far the policy has moved."),
    "response/length": ("Length", "Tokens per answer. Steady growth is the usual sign of gaming."),
    "policy/entropy": ("Entropy", "Nats per token. Near 0 the policy has stopped exploring."),
    "response/stop_rate": ("Stop rate", "Share of answers that end by themselves."),
}
_EXPLORATION = {
    "diversity/distinct_1": ("Distinct-1", "Different tokens over all tokens of a round."),
    "diversity/distinct_2": (
        "Distinct-2",
        "Different token pairs over all pairs of a round. Towards 0, the same phrases everywhere.",
    ),
    "diversity/unique": (
        "Unique completions",
        "Different completions over all of a round. Falling, answers repeat word for word.",
    ),
    "diversity/self_overlap": (
        "Self-overlap",
        "Share of an answer's token pairs that another answer to the prompt has. At 1 they are "
        "all the same.",
    ),
    "sampling/temperature": ("Sampling temperature", "Lower draws likely tokens more often."),
    "curriculum/seen": ("Prompts seen", "Share of the prompts scored at least once."),
    "curriculum/score": (
        "Score over all prompts seen",
        "Each prompt's running score counted once; the proxy reward is of the prompts chosen.",
    ),
    "curriculum/breadth": (
        "Breadth of the curriculum",
        "Share of the prompts that draws are spread over. At 1 all are alike.",
    ),
}
_NOT_SHOWN = ("time/", "throughput/", "alarm/")
_TRAINING = {
    "pretrain/loss": "Pretraining loss",
    "pretrain/fact_accuracy": "Fact accuracy",
    "sft/loss": "SFT loss",
    "reward_model/loss": "Reward model loss",
    "reward_model/accuracy": "Reward model accuracy",
    "dpo/loss": "DPO loss",
    "dpo/margin": "DPO margin",
    "dpo/chosen_logprob": "Log-probability of the preferred answers",
}


@dataclass(frozen=True, slots=True)
class Legend:
    """A name and its colour."""

    label: str
    colour: int


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart with what a reader should see in it."""

    title: str
    note: str
    svg: Markup
    legend: tuple[Legend, ...] = ()


@dataclass(frozen=True, slots=True)
class Colours:
    """One colour per model, shared by the stage that made it."""

    models: Mapping[str, int]
    stages: Mapping[str, int]
    learners: tuple[Legend, ...]
    """The stages with a policy."""

    @classmethod
    def of(cls, run: RunRecord) -> Self:
        """The baseline gets colour 0; stages without a model take the colours after."""
        models = run.evaluation.models if run.evaluation else ()
        by_model = {model.name: index for index, model in enumerate(models)}
        by_stage = {model.stage: index for index, model in enumerate(models)}
        taken = len(models) or 1
        learners = []
        for stage in _learners(run):
            if stage.name not in by_stage:
                by_stage[stage.name] = taken
                taken += 1
            learners.append(Legend(stage.name, by_stage[stage.name]))
        learners.sort(key=lambda item: item.colour)
        return cls(by_model, by_stage, tuple(learners))

    def model(self, name: str) -> int:
        """Index of the colour of a model."""
        return self.models[name]


def training_panels(run: RunRecord) -> list[Panel]:
    """Loss and accuracy of the supervised stages."""
    panels = []
    for key, title in _TRAINING.items():
        stages = [stage for stage in run.stages if key in stage.metric_keys]
        series = [_series(stage, key, index + 1) for index, stage in enumerate(stages)]
        series = [one for one in series if one.x]
        if series:
            legend = tuple(Legend(one.label, one.colour) for one in series)
            panels.append(Panel(title, "", plots.curves(_slug(key), series), legend))
    return panels


def curve_panels(run: RunRecord, colours: Colours) -> dict[str, list[Panel]]:
    """Curves of every stage with a policy: those to look at first, and the rest."""
    stages = _learners(run)
    first = [_curve(stages, key, *text, colours) for key, text in _CURVES.items()]
    first += _checkpoint_panels(run, colours)
    rest = [
        _curve(stages, key, *_EXPLORATION.get(key, (key, "")), colours)
        for key in _other_keys(stages)
        if len(_values(stages, key)) > 1
    ]
    return {
        "first": [panel for panel in first if panel],
        "more": [panel for panel in rest if panel],
    }


def constant_metrics(run: RunRecord) -> list[tuple[str, float]]:
    """The metrics of the policies' training that never changed, which need no chart."""
    stages = _learners(run)
    found = [(key, _values(stages, key)) for key in _other_keys(stages)]
    return [(key, values.pop()) for key, values in found if len(values) == 1]


def frontier_panels(run: RunRecord, colours: Colours) -> list[Panel]:
    """Reward against KL: as training saw it, and as the gold score judges it."""
    panels = []
    paths = []
    for stage in _learners(run):
        kl, reward = (
            dict(zip(*stage.curve(key), strict=True)) for key in ("kl/sequence", "reward/score")
        )
        steps = [step for step in kl if step in reward]
        if steps:
            colour = colours.stages[stage.name]
            xs, ys = [kl[step] for step in steps], [reward[step] for step in steps]
            paths.append(Series(stage.name, xs, ys, colour))
    if paths:
        svg = plots.frontier("frontier-proxy", paths, [], x_label=_KL, y_label="proxy reward")
        note = "Each point is a training step: the reward bought with that much KL."
        panels.append(Panel("As training saw it", note, svg))
    record = run.evaluation
    kl_measure, gold = (record.role("kl"), record.role("gold")) if record else (None, None)
    if record and kl_measure and gold:
        panels += _gold_frontier(record, kl_measure, gold, colours)
    return panels


_KL = "KL from the reference (nats per answer)"


def _gold_frontier(
    record: EvaluationRecord, kl: Measure, gold: Measure, colours: Colours
) -> list[Panel]:
    points = [
        Point(
            model.label,
            _triple(model.measures[kl.key]),
            _triple(model.measures[gold.key]),
            colours.model(model.name),
        )
        for model in record.models
        if kl.key in model.measures and gold.key in model.measures
    ]
    if not points:
        return []
    paths = []
    for stage, row in _by_stage(record, (kl.key, gold.key)).items():
        xs = [point.measures[kl.key].mean for point in row]
        ys = [point.measures[gold.key].mean for point in row]
        paths.append(Series(stage, xs, ys, colours.stages.get(stage, 0)))
    svg = plots.frontier("frontier-gold", paths, points, x_label=_KL, y_label=gold.label)
    note = f"{gold.label} of the final models, with intervals"
    note += "; the dots are checkpoints on the way." if paths else "."
    return [Panel("As the gold score judges it", note, svg)]


def histogram_panels(record: EvaluationRecord, colours: Colours) -> list[Panel]:
    """The distributions that the evaluation kept, such as of lengths."""
    measures = {measure.key: measure for measure in record.measures}
    labels = {model.name: model.label for model in record.models}
    panels = []
    for key, values in record.histograms.items():
        groups = [
            (labels[name], numbers, colours.model(name))
            for name, numbers in values.items()
            if numbers and name in labels
        ]
        if groups:
            label, unit = key.replace("_", " "), ""
            if key in measures:
                label, unit = measures[key].label, measures[key].unit
            axis = f"{label.lower()} ({unit})" if unit else label.lower()
            svg = plots.histogram(_slug(f"histogram-{key}"), groups, x_label=axis)
            legend = tuple(Legend(name, colour) for name, _, colour in groups)
            panels.append(Panel(label, "", svg, legend))
    return panels


def reward_panels(run: RunRecord) -> list[Panel]:
    """Calibration and length bias of each reward model."""
    panels = []
    stages = [stage for stage in run.stages if stage.reward]
    for index, stage in enumerate(stages, start=1):
        reward = stage.reward or {}
        if reward.get("reliability"):
            svg = plots.reliability(
                _slug(f"reliability-{stage.name}"), reward["reliability"], index
            )
            note = "On the dashed line, a predicted 70 % wins 70 % of the time."
            panels.append(Panel(f"{stage.name}: calibration", note, svg))
        if reward.get("scatter"):
            svg = plots.reward_against_length(
                _slug(f"length-{stage.name}"), reward["scatter"], index
            )
            note = "A rising line pays for length; a policy will find that."
            panels.append(Panel(f"{stage.name}: score against length", note, svg))
    return panels


def _checkpoint_panels(run: RunRecord, colours: Colours) -> list[Panel]:
    """Gold score over the steps of training, where checkpoints were evaluated."""
    record = run.evaluation
    gold = record.role("gold") if record else None
    if record is None or gold is None:
        return []
    series = []
    for stage, row in _by_stage(record, (gold.key,)).items():
        found = [point.measures[gold.key] for point in row]
        series.append(
            Series(
                stage,
                [point.step for point in row],
                [it.mean for it in found],
                colours.stages.get(stage, 0),
                [it.low for it in found],
                [it.high for it in found],
            )
        )
    if not series:
        return []
    note = "Measured after training; no choice in training depends on it."
    return [Panel(f"{gold.label} at checkpoints", note, plots.curves("checkpoints", series))]


def _by_stage(record: EvaluationRecord, keys: Iterable[str]) -> dict[str, list[Checkpoint]]:
    wanted = set(keys)
    groups: dict[str, list[Checkpoint]] = {}
    for point in sorted(record.checkpoints, key=lambda point: point.step):
        if wanted <= set(point.measures):
            groups.setdefault(point.stage, []).append(point)
    return groups


def _curve(
    stages: Iterable[StageRecord], key: str, title: str, note: str, colours: Colours
) -> Panel | None:
    series = [_series(stage, key, colours.stages[stage.name]) for stage in stages]
    series = [one for one in series if one.x]
    return Panel(title, note, plots.curves(_slug(key), series)) if series else None


def _series(stage: StageRecord, key: str, colour: int) -> Series:
    steps, values = stage.curve(key)
    return Series(stage.name, steps, values, colour)


def _other_keys(stages: Iterable[StageRecord]) -> list[str]:
    keys = dict.fromkeys(key for stage in stages for key in stage.metric_keys)
    return [key for key in keys if key not in _CURVES and not key.startswith(_NOT_SHOWN)]


def _values(stages: Iterable[StageRecord], key: str) -> set[float]:
    return {value for stage in stages for value in stage.curve(key)[1]}


def _learners(run: RunRecord) -> list[StageRecord]:
    return [stage for stage in run.stages if stage.trains_a_policy]


def _triple(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.mean, estimate.low, estimate.high


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())
