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
    "NAMED",
    "REACHED",
    "Device",
    "Rates",
    "available_memory",
    "measured_rates",
    "named_device",
    "present_device",
    "seconds",
]

REACHED = 0.5
"""Share of the rates that stages are taken to reach: 0.4 to 0.7 was measured for models of 1 to 135
million weights on a CPU."""

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


def _gpu(memory: int, float32: float, bfloat16: float, bandwidth: float) -> tuple[int, Rates]:
    return memory * _GB, Rates(float32 * 1e12, bfloat16 * 1e12, bandwidth * 1e9)


NAMED = {
    # NVIDIA H200 data sheet, SXM: 141 GB, 67 TFLOP/s FP32, 1,979 BF16 with sparsity, 4.8 TB/s.
    "h200": _gpu(141, 67, 989, 4800),
    # NVIDIA H100 data sheet, SXM: 80 GB, 67 TFLOP/s FP32, 1,979 BF16 with sparsity, 3.35 TB/s.
    "h100": _gpu(80, 67, 989, 3350),
    # NVIDIA A100 data sheet, SXM 80 GB: 19.5 TFLOP/s FP32, 312 BF16, 2,039 GB/s.
    "a100-80gb": _gpu(80, 19.5, 312, 2039),
    # NVIDIA A100 data sheet, SXM 40 GB: the same products, 1,555 GB/s.
    "a100-40gb": _gpu(40, 19.5, 312, 1555),
    # NVIDIA L40S data sheet: 48 GB, 91.6 TFLOP/s FP32, 362 BF16 (733 with sparsity), 864 GB/s.
    "l40s": _gpu(48, 91.6, 362, 864),
    # NVIDIA A10 data sheet: 24 GB, 31.2 TFLOP/s FP32, 125 BF16, 600 GB/s.
    "a10": _gpu(24, 31.2, 125, 600),
    # NVIDIA L4 data sheet: 24 GB, 30.3 TFLOP/s FP32, 121 BF16 (242 with sparsity), 300 GB/s.
    "l4": _gpu(24, 30.3, 121, 300),
    # NVIDIA Ada GPU architecture white paper, GeForce RTX 4090: 24 GB, 82.6 TFLOP/s FP32, 165.2
    # BF16 with FP32 accumulate, 1,008 GB/s.
    "rtx4090": _gpu(24, 82.6, 165.2, 1008),
    # NVIDIA Ampere GA102 GPU architecture white paper, GeForce RTX 3090: 24 GB, 35.6 TFLOP/s FP32,
    # 71 BF16 with FP32 accumulate, 936 GB/s.
    "rtx3090": _gpu(24, 35.6, 71, 936),
}
"""Memory and dense rates by the vendor's own figures; GB are 10^9 bytes."""


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
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        rates = measured_rates("cpu") if measure else None
        used = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    return Device(f"this CPU with {used} threads", "cpu", available_memory(), rates, measure)


def measured_rates(device: str, *, budget: float = 1.0) -> Rates:
    """Products and copies for about `budget` seconds; the best of each, as others only disturb."""
    import torch

    size, numbers = (4096, 1 << 28) if device == "cuda" else (768, 1 << 23)
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(size, size, device=device, dtype=dtype)
        rates.append(2.0 * size**3 / _best(partial(torch.mm, a, a), device, 0.35 * budget))
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    copied = 2.0 * source.numel() * source.element_size()
    took = _best(partial(target.copy_, source), device, 0.3 * budget)
    return Rates(rates[0], rates[1], copied / took)


def _best(work: Callable[[], Any], device: str, budget: float) -> float:
    import torch

    work()
    best, end = float("inf"), time.perf_counter() + budget
    while True:
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        best = min(best, now - started)
        if now >= end:
            return best


def seconds(work: tuple[Work, ...], rates: Rates, share: float = 1.0) -> float:
    """An estimate: each part takes as long as its products or its bytes, whichever is longer.

    Args:
        work: parts that follow each other.
        rates: of the device.
        share: of the device's threads that the stage has.
    """
    total = 0.0
    for part in work:
        products = rates.bfloat16 if part.compute == "bfloat16" else rates.float32
        total += max(part.flops / (share * products), part.bytes / rates.bandwidth)
    return total / REACHED


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
