"""`tutelage guard`: what the guard of a training measured, and what it would have said."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from tutelage.cli.stages import section_options, with_options
from tutelage.config import GuardConfig
from tutelage.pipeline.finish import open_console
from tutelage.tracking.atomic import null_non_finite

if TYPE_CHECKING:
    from tutelage.safety.guard import Finding, Measurement

__all__ = ["guard_command"]

_DOC = """\
Shows the probes of a finished training with a guard, and which monitors ring in them.

With options it shows what would have rung with other settings, and which step's policy would
have been kept by the first alarm that stops or rolls back; the training itself stays what it was.

Example: tutelage guard runs/gates/stages/guarded --monitors.length-limit 3

Parameters
----------
stage
    The folder of the finished stage.
prompts
    Take the first prompts of each probe alone.
as_json
    Print the findings as JSON instead of a table.
"""
_OFFERED = ("alpha", "monitors__")
"""Settings that change nothing but what rings, by how their arguments begin."""


def guard_command() -> Callable[..., None]:
    """The command; its options are its own and those of the monitors."""
    every, given = section_options(GuardConfig)
    options = [option for option in every if option.name.startswith(_OFFERED)]

    def guard(
        stage: Path,
        *,
        prompts: int | None = None,
        as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
        **values: Any,
    ) -> None:
        from tutelage.pipeline.guard_tools import read_watched

        watched = read_watched(stage).with_settings(given(values))
        if prompts is not None:
            watched = watched.with_prompts(prompts)
        found, kept = watched.findings(), watched.kept_step()
        if as_json:
            rows = _rows(watched.history, found, kept)
            print(json.dumps(null_non_finite(rows), indent=2))
            return
        console = open_console()
        console.print(_table(watched.history, found))
        for now, findings in zip(watched.history, found, strict=True):
            for finding in findings:
                line = f"{finding.monitor} after step {now.step}: {finding.sentence}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        if kept is not None:
            console.print(
                f"The first alarm that stops or rolls back keeps the policy of step {kept}"
            )

    return with_options(guard, options, _DOC)


def _table(history: "Sequence[Measurement]", found: "Sequence[Sequence[Finding]]") -> Table:
    signals = history[0].signals
    table = Table(title="Means of the probes, and what rings")
    for head in ("step", "reward", *(name.partition("/")[2] for name in signals), "length", "KL"):
        table.add_column(head, justify="right")
    table.add_column("rings")
    for now, findings in zip(history, found, strict=True):
        shown = [f"{now.mean(name):.3g}" for name in ("proxy", *signals, "length", "kl")]
        rings = ", ".join(dict.fromkeys(finding.monitor for finding in findings))
        table.add_row(str(now.step), *shown, rings + " (undone)" * now.undone)
    return table


def _rows(
    history: "Sequence[Measurement]", found: "Sequence[Sequence[Finding]]", kept: int | None
) -> list[dict[str, Any]]:
    return [
        {
            "step": now.step,
            "undone": now.undone,
            "kept": now.step == kept,
            "means": {name: now.mean(name) for name in now.columns},
            "findings": [asdict(finding) for finding in findings],
        }
        for now, findings in zip(history, found, strict=True)
    ]
