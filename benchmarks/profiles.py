"""Where the time of decoding and of an update goes: `python -m benchmarks.profiles C1t C5 C5b`.

One core, our side alone, under torch's profiler. Beside each kind of operator stands what it would
take at the rates that this machine reaches in the same run: the least that matrix products can take
bounds the whole, however fast everything else is made.

    products     matrix products, counted by their shapes, against the rate of a large product
    attention    its operators, forward and backward; in decoding with rotation and storing of keys
    optimiser    AdamW
    the rest     norms, activations, softmax, copies, Python
"""

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.rows import ROWS
from benchmarks.rows.overhead import INSIDE
from benchmarks.rows.ppo import OurPPO
from benchmarks.rows.update import OurUpdate
from benchmarks.sides.limits import Rates, least_seconds
from benchmarks.sides.rollouts import OurEngine

_DECODING = {"C1": "bfloat16", "C1t": "float32", "C2": "bfloat16"}
_UPDATES = {"C5": "float32", "C5b": "bfloat16", "C6": "float32", "C7": "float32", "C8": "float32"}
_ROWS = {**_DECODING, **_UPDATES}
_ATTENTION = (
    "aten::_scaled_dot_product",
    "aten::_flash_attention",
    "aten::_efficient_attention",
    "aten::bmm",
    "aten::_softmax",
    "compiled::read",
)
"""Only attention has a product per head, and a softmax that is no logarithm."""
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
    ours = _decoding(name, quick) if name in _DECODING else _updating(name, dtype, quick)
    ours.run()
    began = time.process_time()
    ours.run()
    seconds = time.process_time() - began
    by_operator = _profiled(ours)
    spent, total = seconds_by_kind(by_operator), sum(by_operator.values())
    lines = [
        f"{name}, {dtype}, one core: {seconds:.2f} CPU seconds, {total:.2f} under the profiler",
        *(f"  {kind:9}  {part / total:5.0%}  {part:6.2f} s" for kind, part in spent.items()),
        f"  in the rest: {_largest_of_the_rest(by_operator)}",
    ]
    if name in _DECODING:
        work = ROWS[name](quick).work
        assert work is not None, "its limit is known"
        least = least_seconds(**work, dtype=dtype, rates=rates)
        return [*lines, f"  bytes and products: {least:.2f} s at least, {least / seconds:.0%}"]
    flops = counted_operations(ours.run)
    least, rate = flops / rates["flops"], flops / spent["products"]
    if name == "C8":
        lines.append(_between_products(quick, rates, seconds))
    return [
        *lines,
        f"  products: {flops / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s, a large product "
        f"runs at {rates['flops'] / 1e9:.0f}: {least:.2f} s at least, {least / seconds:.0%}",
    ]


def _between_products(quick: bool, rates: Mapping[str, float], seconds: float) -> str:
    asked = _requests("C8", quick)
    least = least_seconds("between", asked, "float32", rates)
    return f"  the rest in one pass between products: {least:.2f} s at least, {least / seconds:.0%}"


def _decoding(name: str, quick: bool) -> OurEngine:
    engine = OurEngine(**next(side.options for side in ROWS[name](quick).sides if side.ours))
    engine.prepare()
    return engine


def _updating(name: str, dtype: str, quick: bool) -> OurPPO | OurUpdate:
    """A whole step of PPO; of C8 its epoch alone."""
    from tutelage.distributed import Cores

    whole = OurUpdate if name == "C8" else OurPPO
    trunk = ROWS[name](quick).sides[0].options.get("trunk", "own")
    update = whole(_requests(name, quick), dtype=dtype, trunk=trunk)
    update.prepare()
    update.actors.learner.cores = Cores()
    return update


def _requests(name: str, quick: bool) -> dict[str, Any]:
    """Of C7 those of one round, with answers of full length."""
    requests: dict[str, Any] = ROWS[name](quick).sides[0].options["requests"]
    return {**requests, "full": True} if name == "C7" else requests


def _profiled(ours: OurEngine | OurPPO | OurUpdate) -> dict[str, float]:
    """Seconds by operator.

    Of the profiler's own records: its Python events of an update of 135M would not fit into memory.
    """
    from torch.autograd.profiler import profile

    with _compiled_operations_named(), profile() as profiler:
        ours.run()
    events = profiler.kineto_results.events()
    return seconds_by_operator(
        (e.start_thread_id(), e.start_ns(), e.end_ns(), e.name()) for e in events
    )


@contextmanager
def _compiled_operations_named() -> Iterator[None]:
    """The profiler knows only torch's operators by itself."""
    from torch.profiler import record_function

    from tutelage.native import decoding, training

    call = decoding.call

    def named(name: str, *arguments: Any) -> bool | None:
        with record_function(f"compiled::{name}"):
            return call(name, *arguments)

    decoding.call = training.call = named
    try:
        yield
    finally:
        decoding.call = training.call = call


def counted_operations(work: Callable[[], object]) -> float:
    """Of matrix products outside attention; torch has no formula for those of oneDNN."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    onednn = torch.ops.mkldnn._linear_pointwise
    with FlopCounterMode(display=False, custom_mapping={onednn: _of_linear}) as counter:
        work()
    by_operator = counter.get_flop_counts()["Global"]
    found = ((str(each).replace(".", "::"), flops) for each, flops in by_operator.items())
    return float(sum(flops for name, flops in found if _kind(name) == "products"))


def _of_linear(x: Sequence[int], *others: Any, out_shape: Sequence[int], **options: Any) -> int:
    """2 K for each number of the result; from shapes."""
    return 2 * x[-1] * math.prod(out_shape)


def seconds_by_operator(events: Iterable[tuple[int, int, int, str]]) -> dict[str, float]:
    """What operators took without those that they called.

    Args:
        events: thread, start and end in nanoseconds, and name.
    """
    spent: Counter[str] = Counter()
    around: list[tuple[int, int, str]] = []
    # Of two that start together the longer one has called the other.
    for thread, start, end, name in sorted(events, key=lambda e: (e[0], e[1], -e[2])):
        while around and (around[-1][0] != thread or around[-1][1] <= start):
            around.pop()
        if around:
            spent[around[-1][2]] -= end - start
        spent[name] += end - start
        around.append((thread, end, name))
    return {name: nanoseconds / 1e9 for name, nanoseconds in spent.items()}


def seconds_by_kind(by_operator: Mapping[str, float]) -> dict[str, float]:
    """Sums of products, attention, optimiser and the rest."""
    spent = dict.fromkeys(("products", "attention", "optimiser", "the rest"), 0.0)
    for name, seconds in by_operator.items():
        spent[_kind(name)] += seconds
    return spent


def _largest_of_the_rest(by_operator: Mapping[str, float], count: int = 8) -> str:
    """The operators that take most of it, with their shares of everything."""
    total = sum(by_operator.values())
    rest = {name: part for name, part in by_operator.items() if _kind(name) == "the rest"}
    largest = sorted(rest, key=lambda name: -rest[name])[:count]
    return ", ".join(f"{name.removeprefix('aten::')} {rest[name] / total:.0%}" for name in largest)


def _kind(key: str) -> str:
    if key.startswith(_ATTENTION):
        return "attention"
    if key.startswith(_OPTIMISER):
        return "optimiser"
    return "products" if key.startswith(INSIDE) else "the rest"


if __name__ == "__main__":
    sys.exit(main())
