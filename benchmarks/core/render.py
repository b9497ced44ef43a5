"""Turns records into the tables of docs/performance.md.

Ratios: seconds depend on the machine and stay in the JSON files, but for rows without a peer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.core.row import Row

__all__ = ["BEGIN", "END", "insert", "tables"]

BEGIN = "<!-- tables begin: python -m benchmarks --render -->"
END = "<!-- tables end -->"

_UNITS = {
    "wall_s": "wall",
    "cpu_s": "CPU",
    "device_s": "device",
    "device_bytes": "device memory",
    "idle": "idle share",
}


def insert(page: Path, content: str) -> None:
    """Replaces what stands between the two marks of the page."""
    text = page.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{page} lacks the marks {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n\n{content}\n{END}{after}", "utf-8")


def tables(rows: Sequence[Row], records: Mapping[str, Mapping[str, Any]]) -> str:
    """Results, parity lines and circumstances of the given records."""
    lines = ["| Row | Peer | Times faster | Spread, ours / peer | Share of the limit | Goal |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        lines += _result_lines(row, records.get(row.name))
    lines += ["", "| Row | Parity check | Found | Allowed |", "|---|---|---|---|"]
    for name, record in records.items():
        lines += [
            f"| {name}, {line['side']} | {line['name']} | {line['value']:.2g} "
            f"| {line['limit']:.2g} |"
            for line in record["parity"]
        ]
    lines += ["", "| Row | When | Commit | Machine | Threads | Repeats | Load before, after |"]
    lines.append("|---|---|---|---|---|---|---|")
    lines += [_circumstances(name, record) for name, record in records.items()]
    return "\n".join(lines) + "\n"


def _result_lines(row: Row, record: Mapping[str, Any] | None) -> list[str]:
    if record is None:
        return [f"| {row.name} | | not run | | | {row.goal} |"]
    absent = [
        f"| {row.name} | {name} | not available: {side['not_available']} | | | {row.goal} |"
        for name, side in record["sides"].items()
        if "not_available" in side
    ]
    if record["status"] == "not available":
        return absent
    if record["status"] != "ok":
        return [f"| {row.name} | | {record['status']} | | | {row.goal} |", *absent]
    noisy = [
        f"| {row.name} | {name} | discarded: {reason} | | | {row.goal} |"
        for name, reason in record.get("noisy", {}).items()
    ]
    absent += noisy
    pairs = list(dict.fromkeys((r["ours"], r["peer"]) for r in record["ratios"]))
    if not pairs:
        ours = (name for name, side in record["sides"].items() if "median" in side)
        return [*(_lone_line(row, record, name) for name in ours), *absent]
    return [*(_pair_line(row, record, *pair) for pair in pairs), *absent]


def _lone_line(row: Row, record: Mapping[str, Any], name: str) -> str:
    """Of a side without a peer: its own figure, which is the machine's as much as the side's."""
    first = row.quantities[0]
    found, spread = (record["sides"][name][key][first] for key in ("median", "spread"))
    share = record.get("limit", {}).get("share", {})
    reached = f"{share[name]:.0%}" if name in share else ""
    figure = f"{_UNITS.get(first, first)} {found:.3g}{' s' * first.endswith('_s')}"
    return f"| {row.name} | {name}, no peer | {figure} | {spread:.0%} | {reached} | {row.goal} |"


def _pair_line(row: Row, record: Mapping[str, Any], ours: str, peer: str) -> str:
    ratios = [r for r in record["ratios"] if (r["ours"], r["peer"]) == (ours, peer)]
    factors = ", ".join(
        f"{_UNITS.get(r['quantity'], r['quantity'])} {r['value']:.2f} "
        f"({r['low']:.2f} to {r['high']:.2f})"
        for r in ratios
    )
    first = row.quantities[0]
    spreads = " / ".join(f"{record['sides'][name]['spread'][first]:.0%}" for name in (ours, peer))
    share = record.get("limit", {}).get("share", {})
    shares = " / ".join(f"{share[name]:.0%}" for name in (ours, peer) if name in share)
    return f"| {row.name} | {ours} against {peer} | {factors} | {spreads} | {shares} | {row.goal} |"


def _circumstances(name: str, record: Mapping[str, Any]) -> str:
    machine = record["machine"]
    return (
        f"| {name} | {record['when'][:10]} | {record.get('commit', '')} "
        f"| {machine['cores']} cores of {machine['processor']} | {record.get('threads', '')} "
        f"| {record['repeats']} | {record['load_before']}, {record['load_after']} |"
    )
