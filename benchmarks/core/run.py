"""Runs one row and judges it.

open sides ─> prepare ─> parity gates ─> ABBAAB repeats ─> same work? quiet? ─> ratios
                 └ not available: the side is left out and the record says why
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import median
from typing import Any

from benchmarks.core import machine
from benchmarks.core.order import rounds
from benchmarks.core.process import SideFailed, SideProcess
from benchmarks.core.row import NotAvailable, Row, Side
from benchmarks.core.statistics import noisy_sides, ratio, spread

__all__ = ["judged", "run_row", "run_until_quiet"]

Open = Callable[[Side], SideProcess]
Figures = dict[str, list[float]]


def run_until_quiet(
    measure: Callable[[], dict[str, Any]],
    keep: Callable[[dict[str, Any]], None],
    retries: int,
) -> dict[str, Any]:
    """Measures again after a run that was discarded; returns the last record.

    Args:
        measure: runs a row.
        keep: is given every record, those of discarded runs included.
        retries: runs at most after the first.
    """
    for attempt in range(1, retries + 2):
        record = measure() | {"attempt": attempt}
        keep(record)
        if record["status"] != "discarded":
            break
    return record


def run_row(
    row: Row,
    repeats: int,
    open_side: Open,
    seconds: float = 0.0,
    notify: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measures the row and returns its record; `status` says whether its ratios count.

    Args:
        row: what to run.
        repeats: turns of each side.
        open_side: starts its process.
        seconds: least length of a turn, where calls in one process do the same work.
        notify: told of each turn when it is over.
    """
    if row.fresh or not row.repeatable:
        seconds = 0.0
    record: dict[str, Any] = {
        "row": row.name,
        "title": row.title,
        "goal": row.goal,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "load_before": machine.load(),
        "repeats": repeats,
        "seconds": seconds,
        "sides": {},
        "parity": [],
        "ratios": [],
    }
    started = time.perf_counter()
    try:
        _measure(row, repeats, open_side, record, seconds, notify)
        record |= judged(row, record)
        if record["status"] == "ok" and row.work is not None:
            record["limit"] = _limit(row, record["sides"], open_side)
    except SideFailed as failure:
        notify(failure.log)
        record |= {"status": "failed", "reason": str(failure), "ratios": []}
    record["load_after"] = machine.load()
    record["took_s"] = round(time.perf_counter() - started, 1)
    return record


def _measure(
    row: Row,
    repeats: int,
    open_side: Open,
    record: dict[str, Any],
    seconds: float,
    notify: Callable[[str], None],
) -> None:
    """Fills `record` with gates, and sides with one value of each figure per repeat."""
    with ExitStack() as stack:
        ready: dict[str, SideProcess] = {}
        for ours in (True, False):
            for side in (side for side in row.sides if side.ours is ours):
                process = _prepared(side, stack, open_side, record)
                if process is not None:
                    ready[side.name] = process
            # Without a side of ours that is ready and exact there is nothing to compare.
            if not ready or not all(line["passed"] for line in record["parity"]):
                return
        sides = [side for side in row.sides if side.name in ready]
        record["order"] = [side.name for _, side in rounds(sides, repeats)]
        if row.fresh:
            stack.close()
        measured = _take_turns(row, sides, repeats, ready, open_side, seconds, notify)
    for name, figures in measured.items():
        record["sides"][name] |= {
            "measured": figures,
            "median": {key: median(values) for key, values in figures.items()},
            "spread": {key: spread(values) for key, values in figures.items() if any(values)},
        }


def _prepared(
    side: Side, stack: ExitStack, open_side: Open, record: dict[str, Any]
) -> SideProcess | None:
    """Opens a side and passes it through its gate; None when it is not available."""
    try:
        process = stack.enter_context(open_side(side))
        versions = process.prepare()
    except NotAvailable as reason:
        record["sides"][side.name] = {"ours": side.ours, "not_available": str(reason)}
        return None
    record["sides"][side.name] = {"ours": side.ours, "versions": versions}
    if side.gated:
        record["parity"] += [{"side": side.name, **line} for line in process.check()]
    return process


def _take_turns(
    row: Row,
    sides: Sequence[Side],
    repeats: int,
    ready: Mapping[str, SideProcess],
    open_side: Open,
    seconds: float,
    notify: Callable[[str], None],
) -> dict[str, Figures]:
    measured: dict[str, Figures] = {side.name: {} for side in sides}
    for turn, (_, side) in enumerate(rounds(sides, repeats), 1):
        if row.fresh:
            with open_side(side) as process:
                process.prepare()
                figures = process.run()
        else:
            figures = ready[side.name].run(seconds)
        for key, value in figures.items():
            measured[side.name].setdefault(key, []).append(value)
        shown = ", ".join(f"{key} {figures[key]:.4g}" for key in row.quantities if key in figures)
        notify(f"turn {turn} of {len(sides) * repeats}, {side.name}: {shown}")
    return measured


def judged(row: Row, record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record's measurements say: status, reason, noisy sides, ratios of the quiet ones."""
    sides = record["sides"]
    measured = {name: side["measured"] for name, side in sides.items() if "measured" in side}
    noisy = _noisy(row, measured) if row.repeatable else {}
    quiet = {name: figures for name, figures in measured.items() if name not in noisy}
    status, reason = _verdict(record, measured, quiet)
    if status == "discarded":
        reason = "; ".join([*noisy.values(), _disturbed(measured)])
    ratios = _ratios(row, quiet) if status == "ok" else []
    return {"status": status, "reason": reason, "noisy": noisy, "ratios": ratios}


def _noisy(row: Row, measured: Mapping[str, Figures]) -> dict[str, str]:
    compared = {
        name: {key: figures[key] for key in row.quantities} for name, figures in measured.items()
    }
    return noisy_sides(compared)


def _verdict(
    record: Mapping[str, Any], measured: Mapping[str, Figures], quiet: Mapping[str, Figures]
) -> tuple[str, str | None]:
    sides = record["sides"]
    failed = [line for line in record["parity"] if not line["passed"]]
    if failed:
        lines = (f"{line['side']}: {line['name']} {line['value']:.3g}" for line in failed)
        return "parity failed", "; ".join(lines)
    if not any(sides[name]["ours"] for name in measured):
        reasons = (side.get("not_available") for side in sides.values())
        return "not available", "; ".join(filter(None, reasons))
    tokens = {name: figures.get("tokens", [0.0]) for name, figures in measured.items()}
    if len({value for values in tokens.values() for value in values}) > 1:
        return "work differs", f"real response tokens are not the same on all sides: {tokens}"
    owners = {sides[name]["ours"] for name in quiet}
    return ("ok" if owners == {sides[name]["ours"] for name in measured} else "discarded"), None


def _disturbed(measured: Mapping[str, Figures]) -> str:
    others = max(max(figures.get("others", [0.0])) for figures in measured.values())
    return f"others took up to {others:.1f} cores during a turn"


def _limit(row: Row, sides: Mapping[str, Any], open_side: Open) -> dict[str, Any]:
    """The machine's rates, the least seconds they allow, and how near each side came."""
    from benchmarks.sides.limits import least_seconds

    assert row.work is not None
    rates, seconds = {}, {}
    measured = {side.name: side.format for side in row.sides if "median" in sides[side.name]}
    for name in sorted(set(measured.values())):
        options = {"dtype": name, "device": row.device}
        with open_side(Side(f"rates {name}", "benchmarks.sides.limits:Rates", options)) as process:
            process.prepare()
            found = process.run()
        rates[name] = {key: found[key] for key in ("flops", "bytes_per_s")}
        seconds[name] = least_seconds(**row.work, dtype=name, rates=rates[name])
    share = {
        side: seconds[name] / sides[side]["median"]["wall_s"] for side, name in measured.items()
    }
    return {"rates": rates, "seconds": seconds, "share": share}


def _ratios(row: Row, measured: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """Each of our sides against each peer, in every compared quantity."""
    ours = [side.name for side in row.sides if side.ours and side.name in measured]
    peers = [side.name for side in row.sides if not side.ours and side.name in measured]
    return [
        {
            "ours": mine,
            "peer": peer,
            "quantity": quantity,
            **asdict(ratio(measured[mine][quantity], measured[peer][quantity])),
        }
        for mine in ours
        for peer in peers
        for quantity in row.quantities
    ]
