"""The process of one side: reads requests from stdin, one JSON per line, and answers each.

    {"do": "prepare"}          ─> {"ok": {"versions": ...}}        or {"not_available": why}
    {"do": "check"}            ─> {"ok": [checks]}                 or {"error": traceback}
    {"do": "run", "seconds"}   ─> {"ok": {"wall_s", "cpu_s", ...}}

Answers have a channel of their own: whatever libraries print goes to stderr.
Runs in every environment, so it imports the standard library only until it is told what to do.
"""

import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from benchmarks.core.machine import cpu_seconds, give_memory_back
from benchmarks.core.row import NotAvailable

__all__ = ["main", "turn"]

_SHORT = 0.1
"""Share of a turn's seconds: of a call that takes less, the first of a turn is not counted."""


def main() -> None:
    """Serves one workload until stdin closes."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    workload: Any = None
    rested = 0.0
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                workload = _construct(request["workload"], request["options"])
                workload.prepare()
                # What exists by now is never looked through again in the middle of a timed call.
                gc.collect()
                gc.freeze()
                answer: dict[str, Any] = {"ok": {"versions": _versions()}}
            elif request["do"] == "check":
                answer = {"ok": [check.to_json() for check in workload.check()]}
                # All sides are in memory at once, and the gate's plain models are large.
                give_memory_back()
            else:
                idle = time.process_time() - rested
                figures, others = _beside_others(workload, request["seconds"])
                answer = {"ok": {**figures, "idle_cpu_s": idle, "others": others}}
        except NotAvailable as reason:
            answer = {"not_available": str(reason)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        channel.write(json.dumps(answer) + "\n")
        channel.flush()
        rested = time.process_time()


def _construct(path: str, options: dict[str, Any]) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)(**options)


def _beside_others(workload: Any, seconds: float) -> tuple[dict[str, float], float]:
    """A turn, and how many cores other processes and the host have taken meanwhile."""
    all_before, own_before, began = cpu_seconds(), time.process_time(), time.perf_counter()
    figures = turn(workload, seconds)
    all_after, took = cpu_seconds(), time.perf_counter() - began
    if all_before is None or all_after is None:
        return figures, 0.0
    own = time.process_time() - own_before
    return figures, max(0.0, all_after - all_before - own) / took


def turn(
    workload: Any, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """The work again and again for some seconds; means over the calls.

    Args:
        workload: prepared.
        seconds: to go on for; 0 makes a single call.
        clock: tells how long that is.
    """
    gc.collect()
    calls: list[dict[str, float]] = []
    began = clock()
    while True:
        calls.append(_timed(workload))
        took = clock() - began
        if len(calls) == 1 and took < _SHORT * seconds:
            # The caches hold what the other sides have worked on: this call was to warm them.
            calls.append(_timed(workload))
            del calls[0]
            began += took
            took = clock() - began
        if took >= seconds:
            break
    means = {key: sum(call[key] for call in calls) / len(calls) for key in calls[0]}
    return {**means, "calls": float(len(calls))}


def _timed(workload: Any) -> dict[str, float]:
    begin, held = _mark_on_device(), _device_bytes(anew=True)
    wall, cpu = time.perf_counter(), time.process_time()
    figures = workload.run()
    end = _mark_on_device()
    measured = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    if begin is not None and end is not None:
        measured["device_s"] = begin.elapsed_time(end) / 1000.0
        measured["device_bytes"] = _device_bytes() - held
    return {**measured, **figures}


def _mark_on_device() -> Any:
    """An event on the GPU, all work before it done; None where no GPU is in use."""
    torch = _torch_on_a_gpu()
    if torch is None:
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    torch.cuda.synchronize()
    return event


def _device_bytes(*, anew: bool = False) -> float:
    """The most bytes that tensors have held on the GPU; `anew` begins again with what is held."""
    torch = _torch_on_a_gpu()
    if torch is None:
        return 0.0
    if anew:
        torch.cuda.reset_peak_memory_stats()
    return float(torch.cuda.max_memory_allocated())


def _torch_on_a_gpu() -> Any:
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "trl", "tutelage", "vllm")
    return {name: sys.modules[name].__version__ for name in names if _has_version(name)}


def _has_version(name: str) -> bool:
    return hasattr(sys.modules.get(name), "__version__")


if __name__ == "__main__":
    main()
