"""Where the time of decoding and of an update goes: `python -m benchmarks.profiles C1t C5 C5b`.

One core, our side alone, under torch's profiler. Beside each kind of operator stands what it would
take at the rates that this machine reaches in the same run: the least that matrix products can take
bounds the whole, however fast everything else is made.

    products     matrix products, counted by the profiler, against the rate of a large product
    attention    its operators, forward and backward
    optimiser    AdamW
    the rest     norms, activations, softmax, copies, Python
"""

import argparse
import sys
import time
from typing import Any

from benchmarks.rows.decode import c1t
from benchmarks.rows.overhead import INSIDE
from benchmarks.rows.ppo import OurPPO, ppo_requests
from benchmarks.sides.limits import Rates, least_seconds
from benchmarks.sides.rollouts import OurEngine

_ROWS = {"C1t": "float32", "C5": "float32", "C5b": "bfloat16"}
_ATTENTION = ("aten::_scaled_dot_product", "aten::_flash_attention", "aten::_efficient_attention")
_OPTIMISER = ("aten::_fused_adamw_",)


def main(arguments: list[str] | None = None) -> int:
    """Prints a table for each row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiles", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", metavar="NAME", default=list(_ROWS), help=", ".join(_ROWS)
    )
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    chosen = parser.parse_args(arguments)
    for name in chosen.rows:
        if name not in _ROWS:
            print(f"no profile is called {name}; there are {', '.join(_ROWS)}")
            return 2
        for line in _table(name, _ROWS[name], chosen.quick):
            print(line)
    return 0


def _table(name: str, dtype: str, quick: bool) -> list[str]:
    import torch

    torch.set_num_threads(1)
    rates = Rates(dtype).run()
    ours = _decoding(quick) if name == "C1t" else _updating(name, dtype, quick)
    ours.run()
    began = time.process_time()
    ours.run()
    seconds = time.process_time() - began
    averages = _profiled(ours)
    spent = dict.fromkeys(("products", "attention", "optimiser", "the rest"), 0.0)
    for row in averages:
        spent[_kind(row.key)] += row.self_cpu_time_total / 1e6
    total = sum(spent.values())
    lines = [
        f"{name}, {dtype}, one core: {seconds:.2f} CPU seconds, {total:.2f} under the profiler",
        *(f"  {kind:9}  {part / total:5.0%}  {part:6.2f} s" for kind, part in spent.items()),
    ]
    if name == "C1t":
        work = c1t(quick).work
        assert work is not None, "its limit is known"
        least = least_seconds(**work, dtype=dtype, rates=rates)
        return [*lines, f"  bytes and products: {least:.2f} s at least, {least / seconds:.0%}"]
    flops = float(sum(row.flops for row in averages if _kind(row.key) == "products"))
    least, rate = flops / rates["flops"], flops / spent["products"]
    return [
        *lines,
        f"  products: {flops / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s, a large product "
        f"runs at {rates['flops'] / 1e9:.0f}: {least:.2f} s at least, {least / seconds:.0%}",
    ]


def _decoding(quick: bool) -> OurEngine:
    engine = OurEngine(**next(side.options for side in c1t(quick).sides if side.ours))
    engine.prepare()
    return engine


def _updating(name: str, dtype: str, quick: bool) -> OurPPO:
    from tutelage.distributed import Cores

    update = OurPPO(ppo_requests(name, quick), dtype=dtype)
    update.prepare()
    update.actors.learner.cores = Cores()
    return update


def _profiled(ours: OurEngine | OurPPO) -> Any:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], with_flops=True, acc_events=True) as profiler:
        ours.run()
    return profiler.key_averages()


def _kind(key: str) -> str:
    if key.startswith(_ATTENTION):
        return "attention"
    if key.startswith(_OPTIMISER):
        return "optimiser"
    return "products" if key.startswith(INSIDE) else "the rest"


if __name__ == "__main__":
    sys.exit(main())
