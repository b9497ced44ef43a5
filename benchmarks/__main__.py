"""Runs rows by name: `python -m benchmarks C1f C5`, or `make bench` for all.

What is printed and what is stored is the whole record; the tables of docs/performance.md are
made of the stored ones. Toy sizes (`--quick`) are for developing rows and are never stored; those
of a row for a GPU run on the CPU where there is none.
"""

import argparse
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from benchmarks.core import environments, machine, render, results
from benchmarks.core.process import ROOT, SideProcess
from benchmarks.core.row import Row, Side
from benchmarks.core.run import run_row, run_until_quiet
from benchmarks.rows import ROWS

RESULTS = ROOT / "benchmarks" / "results"
LOGS = ROOT / "runs" / "benchmarks"
PAGE = ROOT / "docs" / "performance.md"


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when every row ran or was not available here, 1 otherwise."""
    chosen = _parser().parse_args(arguments)
    if chosen.list:
        for name, make in ROWS.items():
            print(f"{name:5} {make(False).title}")
        return 0
    if chosen.render:
        _render()
        return 0
    unknown = [name for name in chosen.rows if name not in ROWS]
    if unknown:
        print(f"no row is called {', '.join(unknown)}; there are {', '.join(ROWS)}")
        return 2
    statuses = [_run(ROWS[name](chosen.quick), chosen) for name in _names(chosen)]
    if not chosen.quick:
        _render()
    return int(any(status in ("failed", "parity failed", "work differs") for status in statuses))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="NAME", help="rows to run; see --list")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="all rows of a device")
    parser.add_argument("--quick", action="store_true", help="toy sizes; nothing is stored")
    parser.add_argument("--repeats", type=int, default=6, help="turns of each side (default 6)")
    parser.add_argument(
        "--retries", type=int, default=2, help="runs of a row that was discarded (default 2)"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="least length of a turn (default 10)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of each side (default 2)")
    parser.add_argument("--list", action="store_true", help="show the rows and stop")
    parser.add_argument("--render", action="store_true", help="write the tables and stop")
    return parser


def _names(chosen: argparse.Namespace) -> list[str]:
    if chosen.rows:
        return list(chosen.rows)
    device = chosen.device or "cpu"
    rows = (make(chosen.quick) for make in ROWS.values())
    return [row.name for row in rows if row.selected and row.device == device]


def _run(row: Row, chosen: argparse.Namespace) -> str:
    if row.device == "cuda" and not _has_cuda():
        if not chosen.quick:
            print(f"{row.name}: skipped, it needs a CUDA device and there is none", flush=True)
            return "skipped"
        row = row.on("cpu")
    if not chosen.quick and chosen.repeats < 5:
        raise SystemExit("figures that are stored need 5 repeats at least; --quick stores none")
    print(f"{row.name}: {row.title}", flush=True)
    seconds = min(chosen.seconds, 1.0) if chosen.quick else chosen.seconds

    def measure() -> dict:
        record = run_row(row, chosen.repeats, _opener(row, chosen), seconds, _tell)
        return record | {"commit": machine.commit(ROOT), "threads": chosen.threads}

    def keep(record: dict) -> None:
        if chosen.quick:
            print(json.dumps(record, indent=1))
        else:
            print(f"  stored in {results.append(RESULTS, record).relative_to(ROOT)}")
        _say(record)

    return str(run_until_quiet(measure, keep, chosen.retries)["status"])


def _tell(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _opener(row: Row, chosen: argparse.Namespace) -> Callable[[Side], SideProcess]:
    stamp = datetime.now().strftime("%Y%m%dT%H%M%S")

    def open_side(side: Side) -> SideProcess:
        log = LOGS / f"{stamp}-{row.name}-{side.name.split(',')[0].replace(' ', '-')}.log"
        python = environments.python_of(side.environment)
        return SideProcess(side, python, log, threads=chosen.threads)

    return open_side


def _say(record: dict) -> None:
    print(f"  {record['status']}" + (f": {record['reason']}" if record["reason"] else ""))
    for line in record["parity"]:
        print(f"  parity, {line['side']}: {line['name']} {line['value']:.2g} <= {line['limit']:g}")
    for r in record["ratios"]:
        print(
            f"  {r['ours']} against {r['peer']}, {r['quantity']}: {r['value']:.2f} times "
            f"({r['low']:.2f} to {r['high']:.2f}, {r['confidence']:.0%})"
        )
    for side, share in record.get("limit", {}).get("share", {}).items():
        seconds = record["sides"][side]["median"]["wall_s"]
        print(f"  {side}: {seconds:.3g} s, {share:.2%} of the limit")
    sys.stdout.flush()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _render() -> None:
    rows = [make(False) for make in ROWS.values()]
    records = {row.name: results.latest(RESULTS, row.name) for row in rows}
    render.insert(PAGE, render.tables(rows, {k: v for k, v in records.items() if v}))
    print(f"tables written to {Path(PAGE).relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
