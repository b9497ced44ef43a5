"""A plan for people, as tables, and for machines, as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tutelage.pipeline.plan.devices import LOADING, PACE, REACHED, START, Device, Pace, seconds
from tutelage.pipeline.plan.knobs import Advice
from tutelage.pipeline.plan.parts import StagePlan
from tutelage.pipeline.plan.recipe import ALONE, RecipePlan
from tutelage.pipeline.plan.rows import SHARE_OF_LIMIT
from tutelage.pipeline.plan.sizes import ModelSize
from tutelage.tracking.format import duration

__all__ = ["Verdict", "amount", "plan_json", "plan_tables", "refusal"]


_PREFIXES = ("", "k", "M", "G", "T")


@dataclass(frozen=True)
class Verdict:
    """A plan on a device, and what to do where it does not fit."""

    recipe: str
    plan: RecipePlan
    device: Device
    shares: dict[str, float]
    """Share of the device's threads that each stage has."""
    advice: Advice = field(default_factory=Advice)
    gpus: int = 1
    paces: Mapping[ModelSize, Pace] = field(default_factory=dict)
    """Measured, by the model."""

    @property
    def fits(self) -> bool:
        """Whether the peak is within the memory of the device."""
        return self.plan.peak <= self.device.memory

    def unit_seconds(self, stage: StagePlan, *, longest: bool = False) -> float | None:
        """An estimate for one unit of a stage; None where the rates are not known.

        Args:
            stage: of the plan.
            longest: with rows as long as the recipe allows, instead of typical ones.
        """
        if self.device.rates is None:
            return None
        work = stage.work if longest else stage.typical or stage.work
        pace = PACE[self.device.kind]
        if stage.size is not None:
            pace = self.paces.get(stage.size, pace)
        share = self.shares.get(stage.name, 1.0)
        return seconds(work, self.device.rates, share, pace, stage.cores)

    def stage_seconds(self, stage: StagePlan, *, longest: bool = False) -> float | None:
        """Of all its units; None where it is not known how many they are."""
        one, units = self.unit_seconds(stage, longest=longest), stage.units
        if not longest and stage.expected is not None:
            units = stage.expected
        start = START + LOADING * len(stage.models)
        return None if one is None or units is None else start + one * units

    def all_seconds(self, *, longest: bool = False) -> float | None:
        """Of all stages, side by side where they can be; None where one of them is not known."""
        each = [
            None if took is None else took * self.shares.get(stage.name, 1.0)
            for stage in self.plan.stages
            for took in [self.stage_seconds(stage, longest=longest)]
        ]
        return None if None in each else sum(took for took in each if took is not None)


def amount(size: float, unit: str = "B") -> str:
    """Bytes as people read them: three significant digits, units of 1000."""
    prefix = 0
    while size >= 999.5 and prefix < len(_PREFIXES) - 1:
        size, prefix = size / 1000, prefix + 1
    shown = f"{size:.3g}" if size < 999.5 else f"{size:,.0f}"
    return f"{shown} {_PREFIXES[prefix]}{unit}".rstrip()


def plan_tables(verdict: Verdict) -> Group:
    """Models, stages, the sum, and what would make it fit."""
    lines: list[RenderableType] = [
        _models(verdict.plan.stages),
        _stages(verdict),
        Text("\n".join(_summary(verdict))),
    ]
    return Group(*lines)


def _new_table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column in left:
        table.add_column(column, no_wrap=True)
    for column in right:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _models(stages: Sequence[StagePlan]) -> Table:
    columns = ("Parameters", "Weights", "Gradients", "Optimiser", "Decoder")
    table = _new_table("Models", ("Stage", "Model", "From"), columns)
    for stage in stages:
        for number, model in enumerate(stage.models):
            parts = (model.weights, model.gradients, model.optimiser, model.decoder)
            table.add_row(
                "" if number else stage.name,
                model.role,
                Text(model.source[-36:]),
                amount(model.parameters, "") if model.parameters else "-",
                *(amount(part) if part else "-" for part in parts),
            )
    return table


def _stages(verdict: Verdict) -> Table:
    columns = ("Activations", "KV cache", "Peak", "Work", "Takes", "At most")
    table = _new_table("Stages", ("Stage", "Largest in"), columns)
    for stage in verdict.plan.stages:
        typical, most = verdict.stage_seconds(stage), verdict.stage_seconds(stage, longest=True)
        table.add_row(
            stage.name,
            stage.largest.name,
            amount(_activations(stage)),
            amount(_cache(stage)) if _cache(stage) else "-",
            amount(stage.peak),
            _work(verdict, stage),
            "-" if typical is None else f"~{duration(typical)}",
            "-" if most is None else duration(most),
        )
    return table


def _work(verdict: Verdict, stage: StagePlan) -> str:
    """How often something is done, and how long it takes each time."""
    one, units = verdict.unit_seconds(stage), stage.expected or stage.units
    each = "" if one is None else f" ~{_short(one)}"
    return f"{stage.unit}{each}" if units is None else f"{units:,} x {stage.unit}{each}"


def _short(took: float) -> str:
    return duration(took) if took >= 0.95 else f"{1000 * took:.3g} ms"


def _activations(stage: StagePlan) -> int:
    """Of the phase that needs the most of them."""
    return max(phase.parts.get("activations", 0) for phase in stage.phases)


def _cache(stage: StagePlan) -> int:
    return max(phase.parts.get("KV cache", 0) for phase in stage.phases)


def _summary(verdict: Verdict) -> Iterator[str]:
    plan, device = verdict.plan, verdict.device
    together = " + ".join(plan.together)
    at_once = "at the same time " if len(plan.together) > 1 else ""
    each = " on each of " + str(verdict.gpus) if verdict.gpus > 1 else ""
    yield (
        f"Predicted peak {amount(plan.peak)}{each} ({at_once}{together}), available "
        f"{amount(device.memory)} on {device.name}: {'fits' if verdict.fits else 'does not fit'}."
    )
    yield (
        f"Memory is at the longest rows that the recipe allows, {amount(device.process)} of each "
        "stage for its process included, data not."
    )
    yield from _times(verdict)
    if verdict.gpus > 1:
        yield (
            f"{verdict.gpus} GPUs stand for replicas that share the rows, without the time to "
            "add up their gradients. This version runs a stage on one GPU."
        )
    yield from _advice(verdict)


def _times(verdict: Verdict) -> Iterator[str]:
    """What the times are made of."""
    if (rates := verdict.device.rates) is None:
        return
    typical, most = verdict.all_seconds(), verdict.all_seconds(longest=True)
    if typical is not None and most is not None:
        yield (
            f"All of these stages, side by side where they can be: ~{duration(typical)}, at most "
            f"{duration(most)}."
        )
    origin = "measured just now" if verdict.device.measured else "by its data sheet"
    shares = [f"{pace.reached:.0%}" for pace in verdict.paces.values()]
    reached = " and ".join(dict.fromkeys(shares)) or f"{REACHED:.0%}"
    yield (
        f"Times are estimates: operations and bytes at {reached} of the rates, {origin}: "
        f"{rates.float32 / 1e9:,.0f} GFLOP/s float32, {rates.bfloat16 / 1e9:,.0f} bfloat16, "
        f"{rates.bandwidth / 1e9:,.0f} GB/s. Rows have the length of those in the data where it "
        f"is there or can be foreseen, {SHARE_OF_LIMIT:.0%} of their limit elsewhere, and answers "
        'to a reward always. "At most" is with the longest rows that the recipe allows.'
    )


def _advice(verdict: Verdict) -> Iterator[str]:
    if verdict.fits:
        return
    knobs, limit = verdict.advice.knobs, verdict.device.memory
    if not knobs:
        yield "No key of the recipe saves a noteworthy part of it: take a smaller model."
        return
    yield "What would save memory, each by itself:"
    width = max(len(knob.option) for knob in knobs)
    for knob in knobs:
        fits = ", fits" if knob.peak <= limit else ""
        yield f"  {knob.option:<{width}}  saves {amount(knob.saved)}: {amount(knob.peak)}{fits}"
    if len(knobs) > 1:
        enough = "fits" if verdict.advice.peak <= limit else "still too much: take a smaller model"
        yield f"All of them together: {amount(verdict.advice.peak)}, {enough}."


def refusal(verdict: Verdict) -> str:
    """Why a run is not begun, or should not be, and what to change."""
    plan, device = verdict.plan, verdict.device
    where = "" if plan.together == (ALONE,) else f" (stage {' and '.join(plan.together)})"
    return (
        f"{verdict.recipe} needs {amount(plan.peak)} at its peak{where}, {amount(device.memory)} "
        f"are available on {device.name}.\n" + "\n".join(_advice(verdict))
    )


def plan_json(verdict: Verdict) -> dict[str, Any]:
    """Everything in bytes and seconds."""
    plan, device = verdict.plan, verdict.device
    return {
        "recipe": verdict.recipe,
        "device": {**asdict(device), "process": device.process, "gpus": verdict.gpus},
        "fits": verdict.fits,
        "peak": plan.peak,
        "together": list(plan.together),
        "seconds": verdict.all_seconds(),
        "seconds_at_most": verdict.all_seconds(longest=True),
        "share_of_rates": {size.source: pace.reached for size, pace in verdict.paces.items()}
        or REACHED,
        "stages": [_stage_json(stage, verdict) for stage in plan.stages],
        "knobs": [asdict(knob) for knob in verdict.advice.knobs],
        "peak_with_all_knobs": verdict.advice.peak or None,
    }


def _stage_json(stage: StagePlan, verdict: Verdict) -> dict[str, Any]:
    return {
        "name": stage.name,
        "kind": stage.kind,
        "peak": stage.peak,
        "process": stage.process,
        "models": [asdict(model) for model in stage.models],
        "phases": [
            {"name": phase.name, "bytes": phase.bytes, "parts": dict(phase.parts)}
            for phase in stage.phases
        ],
        "unit": stage.unit,
        "units": stage.expected or stage.units,
        "units_at_most": stage.units,
        "seconds_per_unit": verdict.unit_seconds(stage),
        "seconds": verdict.stage_seconds(stage),
        "seconds_at_most": verdict.stage_seconds(stage, longest=True),
    }
