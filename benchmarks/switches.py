"""What a switch of the environment gains: `python -m benchmarks.switches native C1t C2`.

Our first side of a row in two processes that take turns, one with the switch off and one with it
on, as stages have it: how many times the seconds of the other it takes, and how many times the
memory at most.

    native  what lies between the products of decoding is compiled
    pages   torch asks Linux for pages of 2 MiB under large tensors
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.core.machine import memory_of_process
from benchmarks.core.order import rounds
from benchmarks.core.process import SideProcess
from benchmarks.core.row import Side
from benchmarks.core.statistics import ratio
from benchmarks.rows import ROWS

_CLOCKS = ("wall_s", "cpu_s")
_SWITCHES = {"native": "TUTELAGE_NATIVE", "pages": "THP_MEM_ALLOC_ENABLE"}
_ROWS = {"native": ["C1", "C1t", "C2", "C5"], "pages": ["C4"]}
"""Those measured where none is named."""


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each row."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.switches",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("switch", choices=list(_SWITCHES))
    named = "; ".join(f"{switch}: {', '.join(rows)}" for switch, rows in _ROWS.items())
    parser.add_argument("rows", nargs="*", metavar="NAME", help=f"without any {named}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    chosen = parser.parse_args(arguments)
    for name in chosen.rows or _ROWS[chosen.switch]:
        if name not in ROWS:
            print(f"no row is called {name}; there are {', '.join(ROWS)}")
            return 2
        ours = next(side for side in ROWS[name](chosen.quick).sides if side.ours)
        variable = _SWITCHES[chosen.switch]
        print(f"{name:4} {_compared(ours, variable, chosen.rounds, chosen.threads)}", flush=True)
    return 0


def _compared(side: Side, variable: str, repeats: int, threads: int) -> str:
    turns: dict[str, list[dict[str, float]]] = {"0": [], "1": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        processes = {}
        for asked in turns:
            processes[asked] = stack.enter_context(
                SideProcess(
                    side,
                    Path(sys.executable),
                    folder / asked,
                    threads=threads,
                    environment={variable: asked},
                )
            )
            processes[asked].prepare()
        for _, asked in rounds(list(turns), repeats):
            turns[asked].append(processes[asked].run())
        most = {asked: memory_of_process("VmHWM", it.number) for asked, it in processes.items()}
    cells = []
    for clock in _CLOCKS:
        found = ratio(*([turn[clock] for turn in turns[asked]] for asked in turns))
        cells.append(f"{clock} {found.value:.3f} ({found.low:.3f} to {found.high:.3f})")
    return ", ".join([*cells, f"memory {most['1'] / most['0']:.3f}"])


if __name__ == "__main__":
    sys.exit(main())
