"""The process of one side: reads requests from stdin, one JSON per line, and answers each.

    {"do": "prepare"} ─> {"ok": {"versions": ...}}        or {"not_available": why}
    {"do": "check"}   ─> {"ok": [checks]}                 or {"error": traceback}
    {"do": "run"}     ─> {"ok": {"wall_s", "cpu_s", ...}}

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
from typing import Any

from benchmarks.core.row import NotAvailable

__all__ = ["main"]


def main() -> None:
    """Serves one workload until stdin closes."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    workload: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                workload = _construct(request["workload"], request["options"])
                workload.prepare()
                answer: dict[str, Any] = {"ok": {"versions": _versions()}}
            elif request["do"] == "check":
                answer = {"ok": [check.to_json() for check in workload.check()]}
            else:
                answer = {"ok": _timed(workload)}
        except NotAvailable as reason:
            answer = {"not_available": str(reason)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


def _construct(path: str, options: dict[str, Any]) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)(**options)


def _timed(workload: Any) -> dict[str, float]:
    gc.collect()
    begin = _mark_on_device()
    wall, cpu = time.perf_counter(), time.process_time()
    figures = workload.run()
    end = _mark_on_device()
    measured = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    if begin is not None and end is not None:
        measured["device_s"] = begin.elapsed_time(end) / 1000.0
    return {**measured, **figures}


def _mark_on_device() -> Any:
    """An event on the GPU, all work before it done; None where no GPU is in use."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    torch.cuda.synchronize()
    return event


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "trl", "tutelage", "vllm")
    return {name: sys.modules[name].__version__ for name in names if _has_version(name)}


def _has_version(name: str) -> bool:
    return hasattr(sys.modules.get(name), "__version__")


if __name__ == "__main__":
    main()
