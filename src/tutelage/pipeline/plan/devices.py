"""Where a recipe runs: memory that is free, and rates, measured here or from a data sheet."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError
from tutelage.pipeline.plan.parts import Work

__all__ = [
    "LOADING",
    "NAMED",
    "PACE",
    "REACHED",
    "START",
    "Device",
    "Pace",
    "Rates",
    "available_memory",
    "fastest",
    "measured_rates",
    "named_device",
    "present_device",
    "seconds",
]

REACHED = 0.5
"""Share of the rates that stages are taken to reach: 0.4 to 0.7 was measured for models of 1 to 135
million weights on a CPU."""

_STEP = {"cpu": 0.0, "cuda": 1e-4}
"""Seconds of a block that has next to nothing to do: on a GPU ten kernels that wait for a launch,
each about 10 microseconds from Python."""

_IN_PASSES = 0.75
"""Share of a stage's time that its passes take, 0.7 to 0.8 measured: rows are put together,
metrics read, models saved between them."""
START = 1.0
"""Seconds of a stage before and after its work: it encodes texts and writes files."""
LOADING = 1.0
"""Seconds for each of its models, which it loads."""

_PROCESS = {"cpu": 420_000_000, "cuda": 600_000_000}
"""Bytes of a stage's process without its models. On a CPU: measured, torch 2.13 and transformers
5.23 imported and a stage of a model of 3,000 weights run. On a GPU: what a CUDA context of torch
takes there."""

_GB = 10**9


@dataclass(frozen=True)
class Rates:
    """How fast a device multiplies and copies."""

    float32: float
    """Operations per second of large float32 products."""
    bfloat16: float
    bandwidth: float
    """Bytes per second, read and written."""


@dataclass(frozen=True)
class Pace:
    """What a model gets out of a device."""

    reached: float
    """Share of the rate of its products, in training and reading."""
    step: float = 0.0
    """Seconds that a block takes for one token of some rows, however few."""


@dataclass(frozen=True)
class Device:
    """A device with its free memory."""

    name: str
    kind: str
    """cpu or cuda."""
    memory: int
    """Bytes that a run may take."""
    rates: Rates | None
    """None where nobody asked for times."""
    measured: bool = False
    """The rates were measured on this machine."""

    @property
    def process(self) -> int:
        """Bytes that each stage takes before it loads anything."""
        return _PROCESS[self.kind]


PACE = {kind: Pace(REACHED, step) for kind, step in _STEP.items()}
"""Of models whose pace is not measured: the device is not here, or they are large."""


def _gpu(memory: int, float32: float, bfloat16: float, bandwidth: float) -> tuple[int, Rates]:
    return memory * _GB, Rates(float32 * 1e12, bfloat16 * 1e12, bandwidth * 1e9)


NAMED = {
    # H200 data sheet, SXM: 141 GB, 67 TFLOP/s FP32, 1,979 BF16 with sparsity, 4.8 TB/s.
    # https://www.nvidia.com/en-us/data-center/h200/
    "h200": _gpu(141, 67, 989, 4800),
    # H100 data sheet, SXM: 80 GB, 67 TFLOP/s FP32, 1,979 BF16 with sparsity, 3.35 TB/s.
    # https://www.nvidia.com/en-us/data-center/h100/
    "h100": _gpu(80, 67, 989, 3350),
    # A100 data sheet, SXM: 19.5 TFLOP/s FP32, 312 BF16 dense; 80 GB 2,039 GB/s, 40 GB 1,555.
    # https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/
    # nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf
    "a100-80gb": _gpu(80, 19.5, 312, 2039),
    "a100-40gb": _gpu(40, 19.5, 312, 1555),
    # L40S data sheet: 48 GB, 91.6 TFLOP/s FP32, 362.05 BF16 dense (733 with sparsity), 864 GB/s.
    # https://www.nvidia.com/en-us/data-center/l40s/
    "l40s": _gpu(48, 91.6, 362, 864),
    # A10 data sheet: 24 GB, 31.2 TFLOP/s FP32, 125 BF16 dense (250 with sparsity), 600 GB/s.
    # https://www.nvidia.com/en-us/data-center/products/a10-gpu/
    "a10": _gpu(24, 31.2, 125, 600),
    # L4 data sheet: 24 GB, 30.3 TFLOP/s FP32, 242 BF16 with sparsity, 300 GB/s.
    # https://www.nvidia.com/en-us/data-center/l4/
    "l4": _gpu(24, 30.3, 121, 300),
    # NVIDIA Ada GPU Architecture, v2.01, GeForce RTX 4090: 24 GB, 82.6 TFLOP/s FP32, 165.2 BF16
    # dense with FP32 accumulate, 1,008 GB/s.
    "rtx4090": _gpu(24, 82.6, 165.2, 1008),
    # NVIDIA Ampere GA102 GPU Architecture, v2.0, GeForce RTX 3090: 24 GB, 35.6 TFLOP/s FP32,
    # 71 BF16 dense with FP32 accumulate, 936 GB/s.
    # https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf
    "rtx3090": _gpu(24, 35.6, 71, 936),
}
"""Memory and dense rates by the vendor's own figures, half of those with sparsity where it gives no
others; GB are 10^9 bytes. A test derives the rates again from units and clocks."""


def named_device(name: str) -> Device:
    """A device from the table.

    Raises:
        ConfigError: it is not in the table.
    """
    key = name.lower().replace("_", "-")
    if key not in NAMED:
        close = get_close_matches(key, NAMED, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"--device {name}: not known.{hint} Known: {', '.join(NAMED)}")
    memory, rates = NAMED[key]
    return Device(key, "cuda", memory, rates)


def present_device(threads: int | None = None, *, measure: bool = True) -> Device:
    """The GPU where there is one, as in the stages; the processor elsewhere.

    Args:
        threads: of torch on a processor; unset takes what torch takes.
        measure: multiply and copy for about a second to learn the rates.
    """
    import torch

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        rates = measured_rates("cuda") if measure else None
        return Device(torch.cuda.get_device_name(), "cuda", free, rates, measure)
    used = threads or torch.get_num_threads()
    rates = measured_rates("cpu", used) if measure else None
    many = "" if used == 1 else "s"
    return Device(f"this CPU with {used} thread{many}", "cpu", available_memory(), rates, measure)


def measured_rates(device: str, threads: int = 1, *, budget: float = 1.0) -> Rates:
    """Products and copies for about `budget` seconds; the best of each, as others only disturb.

    On a processor one thread is measured, in the seconds that it computes, which others can
    hardly lengthen. As many threads multiply as many times as fast; the memory is one for all.

    Args:
        device: cpu or cuda.
        threads: of a processor.
        budget: seconds.
    """
    import torch

    from tutelage.models.products import product

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    size, numbers = (4096, 1 << 28) if device == "cuda" else (768, 1 << 23)
    rates = []
    try:
        for dtype in (torch.float32, torch.bfloat16):
            a = torch.ones(size, size, device=device, dtype=dtype)
            took = fastest(partial(product, a, a), device, 0.35 * budget)
            rates.append(threads * 2.0 * size**3 / took)
        source = torch.ones(numbers, device=device)
        target = torch.empty_like(source)
        copied = 2.0 * source.numel() * source.element_size()
        took = fastest(partial(target.copy_, source), device, 0.3 * budget)
    finally:
        torch.set_num_threads(before)
    return Rates(rates[0], rates[1], copied / took)


def fastest(work: Callable[[], Any], device: str, budget: float) -> float:
    """Seconds of the fastest call; on a processor those of its own, not those of others.

    Args:
        work: computes in one thread, or on a GPU.
        device: cpu or cuda.
        budget: seconds to try for.
    """
    import torch

    clock = time.perf_counter if device == "cuda" else time.process_time
    work()
    best, end = float("inf"), time.perf_counter() + budget
    while True:
        started = clock()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, clock() - started)
        if time.perf_counter() >= end:
            return best


def seconds(
    work: tuple[Work, ...],
    rates: Rates,
    share: float = 1.0,
    pace: Pace | None = None,
    cores: int = 1,
) -> float:
    """An estimate: each part takes as long as its products or its bytes, whichever is longer.

    Args:
        work: parts that follow each other.
        rates: of the device.
        share: of the device's threads that the stage has.
        pace: of its model; unset, that of large ones.
        cores: among which its rows are shared out.
    """
    pace = pace or Pace(REACHED)
    total = 0.0
    for part in work:
        products = rates.bfloat16 if part.compute == "bfloat16" else rates.float32
        moved = part.bytes / (REACHED * rates.bandwidth)
        total += max(part.flops / (share * pace.reached * products), moved)
        total += part.steps * pace.step / max(1.0, share * cores)
    return total / _IN_PASSES


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process and its children may still take: of the machine and of its cgroup.

    Args:
        root: where `proc` and `sys` are.
    """
    free = [_machine_memory(root), *_cgroup_memory(root)]
    return max(0, min(free))


def _machine_memory(root: Path) -> int:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_memory(root: Path) -> list[int]:
    """What each cgroup that this process is in leaves; its cache of files can be given up."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, used = (
                root / "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        else:
            continue
        inner = base / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(base):
                left += _left_in(folder, limit, used)
    return left


def _left_in(folder: Path, limit: str, used: str) -> list[int]:
    try:
        most = (folder / limit).read_text().strip()
        current = int((folder / used).read_text())
        statistics = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return []
    if most == "max":
        return []
    counted = dict(line.split()[:2] for line in statistics)
    return [int(most) - current + int(counted.get("inactive_file", 0))]
