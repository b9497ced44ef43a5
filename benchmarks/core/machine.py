"""What a measurement depends on besides the code: machine, load, versions."""

import ctypes
import gc
import os
import platform
import subprocess
from pathlib import Path

__all__ = [
    "commit",
    "cpu_seconds",
    "describe",
    "give_memory_back",
    "load",
    "memory_of_process",
]

_TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")


def load() -> float:
    """Processes that wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2)


def cpu_seconds() -> float | None:
    """CPU-seconds that all processes have used since the start, and that the host took away.

    None where the kernel does not tell.
    """
    file = Path("/proc/stat")
    if not file.exists():
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(
        int, file.read_text("utf-8").split(maxsplit=9)[1:9]
    )
    used = user + nice + system + interrupts + soft + stolen
    return used / os.sysconf("SC_CLK_TCK")


def memory_of_process(key: str, process: int | str = "self") -> float:
    """Bytes of a process as Linux names them: `VmRSS` is resident now, `VmHWM` the most so far.

    Raises:
        ValueError: the kernel has no such line.
    """
    for line in Path(f"/proc/{process}/status").read_text("utf-8").splitlines():
        if line.startswith(key):
            return float(line.split()[1]) * 1024
    raise ValueError(f"the kernel does not tell {key}")


def give_memory_back() -> None:
    """Returns to the system what nothing refers to any more, where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def describe() -> dict[str, object]:
    """Processor, cores, memory, system; no name that identifies the machine."""
    model, flags = platform.machine(), set()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text("utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "flags": [flag for flag in _TELLING_FLAGS if flag in flags],
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def commit(root: Path) -> str:
    """The checked-out commit, with a plus sign when files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "src") else ""
    )
