"""`report.html`: what a run did and what came of it, on one page that needs nothing else.

    run folder ──read_run──> RunRecord ──sections──> plain values and charts
                                                          └──template──> report.html

Only what is on disk is read, so the report can be made again at any time. The page
loads nothing from anywhere and runs no script; text from models is escaped.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tutelage.tracking.atomic import write_text_atomically
from tutelage.tracking.evaluation_record import EvaluationRecord
from tutelage.tracking.format import duration
from tutelage.tracking.plots import NUM_COLOURS
from tutelage.tracking.reader import RunRecord, read_run
from tutelage.tracking.report_charts import (
    Colours,
    constant_metrics,
    curve_panels,
    frontier_panels,
    histogram_panels,
    reward_panels,
    training_panels,
)
from tutelage.tracking.report_guard import guard_sections
from tutelage.tracking.report_outcome import (
    difference_table,
    headline_table,
    length_control_rows,
    side_by_side,
)
from tutelage.tracking.report_stages import (
    configuration_rows,
    label_tables,
    reward_table,
    stage_row,
    training_samples,
    version_list,
)
from tutelage.tracking.report_text import typeset
from tutelage.tracking.verdict import verdicts

__all__ = ["render_report"]

_TEMPLATES = Path(__file__).parent / "templates"


def render_report(run_folder: Path) -> Path:
    """Writes `report.html` into a run folder from the files found there; returns its path.

    Raises:
        CheckpointError: there is no finished stage, a file is damaged, or the disk is full.
        MissingExtraError: matplotlib is not installed.
    """
    run = read_run(run_folder)
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typeset
    environment.globals["num_colours"] = NUM_COLOURS
    page = environment.get_template("report.html.jinja").render(_content(run))
    path = run_folder / "report.html"
    write_text_atomically(path, page)
    return path


def _content(run: RunRecord) -> dict[str, Any]:
    colours = Colours.of(run)
    content = {
        "run": _header(run),
        "stages": [stage_row(stage, run) for stage in run.stages],
        "training_panels": training_panels(run),
        "labels": [label_tables(stage) for stage in run.stages if stage.labels],
        "rewards": reward_table(run),
        "reward_panels": reward_panels(run),
        "curve_panels": curve_panels(run, colours),
        "constant_metrics": constant_metrics(run),
        "curve_legend": colours.learners,
        "guards": guard_sections(run),
        "frontier_panels": frontier_panels(run, colours),
        "training_samples": [it for stage in run.stages if (it := training_samples(stage))],
        "configurations": [(stage.name, configuration_rows(stage)) for stage in run.stages],
        "versions": version_list(run),
    }
    return content | _outcome(run.evaluation, colours)


def _outcome(record: EvaluationRecord | None, colours: Colours) -> dict[str, Any]:
    if record is None:
        names = ("verdicts", "notes", "histogram_panels", "length_control", "models", "samples")
        return {"headline": None, "differences": None, **{name: [] for name in names}}
    return {
        "verdicts": verdicts(record),
        "headline": headline_table(record, colours),
        "differences": difference_table(record),
        "notes": record.notes,
        "histogram_panels": histogram_panels(record, colours),
        "length_control": length_control_rows(record),
        "models": {
            model.name: {"label": model.label, "colour": colours.model(model.name)}
            for model in record.models
        },
        "samples": side_by_side(record),
    }


def _header(run: RunRecord) -> dict[str, str]:
    last = max(stage.manifest.finished for stage in run.stages)
    # A run hands each stage a seed of its own, derived from the one in the summary.
    seeds = sorted({stage.manifest.seed for stage in run.stages})
    seeds = [run.summary["seed"]] if "seed" in run.summary else seeds
    return {
        "name": run.name,
        "finished": f"{last[:16].replace('T', ' ')} UTC",
        "duration": duration(run.seconds),
        "seed": ", ".join(str(seed) for seed in seeds),
        "stages": str(len(run.stages)),
    }
