"""A plan for people, as tables, and for machines, as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tutelage.pipeline.plan.devices import REACHED, Device, seconds
from tutelage.pipeline.plan.knobs import Advice
from tutelage.pipeline.plan.parts import StagePlan
from tutelage.pipeline.plan.recipe import ALONE, RecipePlan
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

    @property
    def fits(self) -> bool:
        """Whether the peak is within the memory of the device."""
        return self.plan.peak <= self.device.memory

    def update_seconds(self, stage: StagePlan) -> float | None:
        """An estimate for one unit of a stage; None where the rates are not known."""
        if self.device.rates is None:
            return None
        return seconds(stage.work, self.device.rates, self.shares.get(stage.name, 1.0))


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
    columns = ("Models", "Activations", "KV cache", "Peak", "One", "at most", "Times", "In all")
    table = _new_table("Stages", ("Stage", "Largest in"), columns)
    for stage in verdict.plan.stages:
        one = verdict.update_seconds(stage)
        table.add_row(
            stage.name,
            stage.largest.name,
            amount(stage.kept),
            amount(_activations(stage)),
            amount(_cache(stage)) if _cache(stage) else "-",
            amount(stage.peak),
            stage.unit,
            "-" if one is None else f"~{_short(one)}",
            "-" if stage.units is None else f"{stage.units:,}",
            "-" if one is None or stage.units is None else f"~{duration(one * stage.units)}",
        )
    return table


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
    if device.rates is not None:
        rates = device.rates
        origin = "measured just now" if device.measured else "by its data sheet"
        yield (
            f"Times are estimates for such rows, at {REACHED:.0%} of its rates, {origin}: "
            f"{rates.float32 / 1e9:,.0f} GFLOP/s float32, {rates.bfloat16 / 1e9:,.0f} bfloat16, "
            f"{rates.bandwidth / 1e9:,.0f} GB/s."
        )
    if verdict.gpus > 1:
        yield (
            f"{verdict.gpus} GPUs stand for replicas that share the rows, without the time to "
            "add up their gradients. This version runs a stage on one GPU."
        )
    yield from _advice(verdict)


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
        "assumed_share_of_rates": REACHED,
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
        "units": stage.units,
        "seconds_per_unit": verdict.update_seconds(stage),
    }
